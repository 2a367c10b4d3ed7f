"""A region's S3 store: a server over a folder, beside the control plane of its cluster.

Started by cluster.py; agents, pods and tests reach it at `endpoint`.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.e2e.kubernetes import parts
from tests.e2e.kubernetes.network import Host
from tests.e2e.kubernetes.state import until

PORT = 7070


@dataclass(frozen=True, slots=True)
class Store:
    """`url` is what a region calls it; the key and secret belong to the region's agent alone."""

    url: str
    endpoint: str
    key: str
    secret: str
    region: str = "us-east-1"


def start(host: Host, folder: Path, *, binaries: Path) -> Store:
    bucket = f"{host.cluster}-store"
    (folder / "store" / bucket).mkdir(parents=True)
    secret = folder / "store.secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(16))
    store = describe(host, folder)
    parts.start(
        "store", host, folder,
        "env", f"ROOT_ACCESS_KEY={store.key}", f"ROOT_SECRET_KEY={store.secret}",
        str(binaries / "versitygw"), "--port", f"{host.address}:{PORT}",
        "posix", "--nometa", str(folder / "store"),
    )  # fmt: skip
    until(f"the store of {host.cluster} answers", lambda: _answers(store.endpoint))
    return store


def describe(host: Host, folder: Path) -> Store:
    return Store(
        url=f"s3://{host.cluster}-store",
        endpoint=f"http://{host.address}:{PORT}",
        key=host.cluster,
        secret=(folder / "store.secret").read_text(),
    )


def _answers(endpoint: str) -> bool:
    try:
        urlopen(endpoint, timeout=2).close()
    except HTTPError as refusal:
        refusal.close()  # it wants a signature: it is there
    except OSError:
        return False
    return True

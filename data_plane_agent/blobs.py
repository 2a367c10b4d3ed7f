"""The region's object store for the agent: writes below its root, reads any artifact by its
absolute address.

Used by the launchers (logs, orders of pods, their mailbox) and by the session (which of these
artifacts can't you read?).
"""

import asyncio
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, S3Store
from whimbrel.errors import InvalidInput, Refused
from whimbrel.runtime_store import (
    StoreFull,
    UnreadableInput,
    address,
    first_line,
    locate,
    open_store,
)
from whimbrel.spec import Artifact

if TYPE_CHECKING:
    from obstore.store import S3Config

PROBE_SECONDS = 5.0
"""For one artifact. Too short calls a slow store unreadable and computes again; too long delays a
failover."""
REQUEST_SECONDS = 30.0
"""For one request to an S3 store. Shorter gives up uploads on slow links, longer hangs on a store
that is frozen."""
_PROBES_AT_ONCE = 32
_CHUNK = 8 * 1024 * 1024
_AWAY = re.compile(r"status code: (5\d\d|408|429)|HTTP error")
"""In obstore's own words, which is all that tells a store that is away from one that refuses."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How an S3 store is reached. `endpoint` "" = the one of AWS; without `key` requests are not
    signed with keys of ours but with what the environment offers (never a region's own: URLs signed
    so die early)."""

    endpoint: str = ""
    key: str = ""
    secret: str = field(default="", repr=False)
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing."""

    uri: str
    bytes: int
    modified_seconds: float


class Blobs:
    """`root` is the store's URL, e.g. file:///data/us-east/store or s3://bucket/prefix; a local
    folder is made when it is missing. `peers` are other regions' stores by URL, to read only.

    Raises InvalidInput for options of what is no S3 store.
    """

    def __init__(
        self,
        root: str,
        *,
        region: str,
        options: StoreOptions | None = None,
        peers: Mapping[str, StoreOptions] | None = None,
    ) -> None:
        self.root = root.rstrip("/")
        self.region = region
        parts = urlsplit(self.root)
        if parts.scheme == "file":
            Path(unquote(parts.path)).mkdir(parents=True, exist_ok=True)
        reached = {url.rstrip("/"): peer for url, peer in (peers or {}).items()}
        if options is not None:
            reached[self.root] = options
        # The longest address first: a peer may be one folder of a bucket.
        self._reached = sorted(reached, key=_length)
        self._buckets = [(url, _bucket(url, reached[url])) for url in self._reached]
        self._inside = ""
        if options is not None:
            self._store, self._inside = self._locate(f"{self.root}/")
        else:
            self._store = open_store(self.root)

    async def put(self, key: str, data: bytes | Path, *, kind: str = "file") -> Artifact:
        """StoreFull when the store does not take it. A path is streamed from the disk."""
        digest = await asyncio.to_thread(_digest_of, data)
        try:
            await obstore.put_async(self._store, self._inside + key, data)
        except (OSError, BaseError) as error:
            raise StoreFull(f"can't write to the store {self.root}: {first_line(error)}") from error
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        return Artifact(address(self.root, key), digest, size, self.region, kind)

    async def get(self, uri: str) -> bytes:
        """UnreadableInput when it is not there, or its store is not."""
        try:
            store, path = self._locate(uri)
            return bytes(await (await obstore.get_async(store, path)).bytes_async())
        except (OSError, ValueError, BaseError) as error:
            raise UnreadableInput(uri, first_line(error)) from error

    async def size(self, uri: str) -> int:
        """Bytes of an object; UnreadableInput as `get`."""
        try:
            store, path = self._locate(uri)
            return (await obstore.head_async(store, path))["size"]
        except (OSError, ValueError, BaseError) as error:
            raise UnreadableInput(uri, first_line(error)) from error

    async def unreadable(self, artifacts: Iterable[Artifact]) -> list[str]:
        """The addresses, of those given, that can't be read from here now."""
        gate = asyncio.Semaphore(_PROBES_AT_ONCE)

        async def bad(artifact: Artifact) -> bool:
            async with gate:
                try:
                    async with asyncio.timeout(PROBE_SECONDS):
                        return await self.size(artifact.uri) != artifact.bytes
                except (UnreadableInput, TimeoutError):
                    return True

        asked = list(artifacts)
        answers = await asyncio.gather(*(bad(artifact) for artifact in asked))
        return [artifact.uri for artifact, lost in zip(asked, answers, strict=True) if lost]

    async def take(self, artifact: Artifact, key: str) -> None:
        """Copies another region's object under `key`, unless it lies there already; only the bytes
        that its digest names get there. UnreadableInput, StoreFull."""
        own = replace(artifact, uri=address(self.root, key))
        with tempfile.TemporaryDirectory(prefix="whimbrel-copy-") as folder:
            with suppress(UnreadableInput):
                if await self.size(own.uri) == artifact.bytes:
                    return await self._fetch(own, None)
            path = Path(folder, "object")
            await self._fetch(artifact, path)
            await self.put(key, path)

    async def _fetch(self, artifact: Artifact, target: Path | None) -> None:
        """Into a file, or only to see that it is what it is said to be."""
        digest, size = hashlib.sha256(), 0
        file = await asyncio.to_thread(open, target or os.devnull, "wb")
        try:
            store, path = self._locate(artifact.uri)
            found = await obstore.get_async(store, path)
            async for chunk in found.stream(min_chunk_size=_CHUNK):
                size += len(chunk)
                await asyncio.to_thread(digest.update, chunk)
                await asyncio.to_thread(file.write, chunk)
        except (OSError, ValueError, BaseError) as error:
            raise UnreadableInput(artifact.uri, first_line(error)) from error
        finally:
            await asyncio.to_thread(file.close)
        if size != artifact.bytes or digest.hexdigest() != artifact.sha256:
            raise UnreadableInput(artifact.uri, "its content is not what was stored")

    async def entries(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        """What lies below `prefix`, page by page. UnreadableInput when the store is away."""
        try:
            pages = obstore.list(  # pyright: ignore[reportUnknownMemberType]  # of its overloads
                self._store, prefix=self._inside + prefix
            )
            async for page in pages:
                yield [
                    Entry(
                        address(self.root, item["path"].removeprefix(self._inside)),
                        item["size"],
                        item["last_modified"].timestamp(),
                    )
                    for item in page
                ]
        except (OSError, BaseError) as error:
            raise UnreadableInput(address(self.root, prefix), first_line(error)) from error

    async def delete(self, uris: Sequence[str]) -> None:
        """Objects of the own store, in one request for many; what is gone already is fine.
        StoreFull when the store does not take it."""
        try:
            paths = [self._locate(uri)[1] for uri in uris]
            await obstore.delete_async(self._store, paths)
        except FileNotFoundError:
            if len(uris) > 1:  # a folder stops at the first one that is missing
                for uri in uris:
                    await self.delete([uri])
        except (OSError, ValueError, BaseError) as error:
            raise StoreFull(f"can't delete in {self.root}: {first_line(error)}") from error

    async def sign(
        self, method: Literal["GET", "PUT"], uris: Iterable[str], *, seconds: float
    ) -> dict[str, str]:
        """By address: URLs that open one object each, without our keys, for `seconds`. With keys
        given no request is made for it.

        UnreadableInput names the first address that lies in no store we have keys of.
        """
        by_store: dict[int, tuple[S3Store, list[tuple[str, str]]]] = {}
        for uri in uris:
            # Never a store that is only guessed from the address: its client would go and look
            # for keys in the network.
            known = any(uri.startswith(f"{url}/") for url in (*self._reached, self.root))
            store, path = self._locate(uri) if known else (None, "")
            if not isinstance(store, S3Store):
                raise UnreadableInput(uri, "it is in no store that this region has keys of")
            by_store.setdefault(id(store), (store, []))[1].append((uri, path))
        signed: dict[str, str] = {}
        for store, asked in by_store.values():
            paths = [path for _, path in asked]
            try:
                urls = await obstore.sign_async(store, method, paths, timedelta(seconds=seconds))
            except BaseError as error:
                raise UnreadableInput(asked[0][0], first_line(error)) from error
            signed |= {uri: url for (uri, _), url in zip(asked, urls, strict=True)}
        return signed

    def holds(self, uri: str, *, below: str) -> bool:
        """Whether it is the address of an object below that key of the own store or a peer's."""
        roots = sorted({*self._reached, self.root}, key=_length)
        root = next((root for root in roots if uri.startswith(f"{root}/")), None)
        if root is None:
            return False
        folder = f"{unquote(urlsplit(root).path).rstrip('/')}/{below}/"
        path = unquote(urlsplit(uri).path)
        steps = path.removeprefix("/").split("/")
        return path.startswith(folder) and not {"", ".", ".."}.intersection(steps)

    async def refuse_for_pods(self) -> None:
        """At the start: Refused, with what to do, unless pods can use this store by signed URLs. A
        store that does not answer is waited for, by whoever needs it."""
        if not isinstance(self._store, S3Store):
            raise Refused(
                f"pods can't use the store {self.root}: they reach it by signed URLs",
                remedy="give the region an S3 store: --store s3://BUCKET --store-endpoint URL",
            )
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                probe = await self.put("whimbrel-probe", b"an agent was here\n")
                await self.get(probe.uri)
        except TimeoutError:
            log.warning("the store %s does not answer yet", self.root)
        except (StoreFull, UnreadableInput) as error:
            if _AWAY.search(first_line(error)):
                log.warning("the store does not answer yet: %s", error)
                return
            raise Refused(
                f"the region's store does not work: {error}",
                remedy="check --store, --store-endpoint, --store-key and --store-secret",
            ) from error

    def _locate(self, uri: str) -> tuple[ObjectStore, str]:
        for url, store in self._buckets:
            if uri.startswith(f"{url}/"):
                return store, unquote(urlsplit(uri).path).lstrip("/")
        return locate(uri)


def _length(url: str) -> int:
    return -len(url)


def _digest_of(data: bytes | Path) -> str:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bucket(url: str, options: StoreOptions) -> S3Store:
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise InvalidInput(f"{url} is no S3 store (s3://BUCKET/PREFIX), but an endpoint is given")
    config: S3Config = {"region": options.region}
    if options.endpoint:
        config["endpoint"] = options.endpoint
    if options.key:
        config["access_key_id"], config["secret_access_key"] = options.key, options.secret
    return S3Store(
        parts.netloc,
        config=config,
        client_options={
            "allow_http": options.endpoint.startswith("http://"),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "connect_timeout": timedelta(seconds=5),
        },
        retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=REQUEST_SECONDS)},
    )

"""Three members of etcd, as processes of the test's own."""

import base64
import contextlib
import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whimbrel.cli.federation.parts import HOST, etcd_binary, free_ports

from tests.e2e.federation import eventually


class Members:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = free_ports(6)
        self.clients = [f"{HOST}:{port}" for port in ports[:3]]
        self.peers = [f"http://{HOST}:{port}" for port in ports[3:]]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def endpoints(self) -> str:
        return ",".join(self.clients)

    def start(self, index: int) -> None:
        client = f"http://{self.clients[index]}"
        members = ",".join(f"m{i}={peer}" for i, peer in enumerate(self.peers))
        with (self.folder / f"m{index}.log").open("ab") as log:
            self.processes[index] = subprocess.Popen(
                [
                    etcd_binary(), "--name", f"m{index}",
                    "--data-dir", str(self.folder / f"m{index}"),
                    "--listen-client-urls", client, "--advertise-client-urls", client,
                    "--listen-peer-urls", self.peers[index],
                    "--initial-advertise-peer-urls", self.peers[index],
                    "--initial-cluster", members, "--log-level", "warn",
                    "--heartbeat-interval", "50", "--election-timeout", "500",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip

    def ask(self, index: int, path: str, **body: object) -> dict[str, Any]:
        """etcd's own JSON door; {} when it does not answer."""
        asked = urllib.request.Request(
            f"http://{self.clients[index]}/v3/{path}", data=json.dumps(body).encode(), method="POST"
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=2) as answer:
            return json.load(answer)
        return {}

    def change(self, *, times: int) -> int:
        """Writes a key of the test's own; answers the revision afterwards."""
        key = base64.b64encode(b"/elsewhere").decode()
        said: dict[str, Any] = {}
        for _ in range(times):
            said = self.ask(0, "kv/put", key=key, value=key)
        return int(said["header"]["revision"])

    def compact(self, revision: int) -> None:
        assert self.ask(0, "kv/compaction", revision=str(revision), physical=True)

    def leader(self) -> int:
        def found() -> int | None:
            for index in self.processes:
                said = self.ask(index, "maintenance/status")
                if said.get("leader", "") == said.get("header", {}).get("member_id"):
                    return index + 1
            return None

        return eventually("etcd has a leader", found) - 1

    def kill(self, index: int) -> None:
        process = self.processes.pop(index)
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def members(folder: Path) -> Iterator[Members]:
    made = Members(folder)
    try:
        for index in range(3):
            made.start(index)
        made.leader()
        yield made
    finally:
        for index in list(made.processes):
            made.kill(index)

"""A router among real parts: etcd and replicas as processes, a small ledger and agents in process.

Used by `test_router_live.py`. A fault is a real signal; everything waits for events with a
generous deadline.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from whimbrel.service.rpc import channel, serve
from whimbrel.wire.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    placement_pb2_grpc,
)
from whimbrel.wire.v1 import placement_pb2 as placement

TTL = 2
HEARTBEAT = 0.4
DEADLINE = 20.0
ETCD = Path(sys.executable).parent / "etcd"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    try:
        async with asyncio.timeout(deadline):
            while not (found := condition()):
                await asyncio.sleep(0.02)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {deadline:g} s: {what}") from None


class Process:
    """A command that is started, killed and started again."""

    def __init__(self, *command: str, log: Path, environment: dict[str, str] | None = None) -> None:
        self.command = command
        self.log = log
        self.environment = environment or {}
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdout=log, stderr=log, env={**os.environ, **self.environment}
            )

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()


class Etcd(Process):
    def __init__(self, folder: Path) -> None:
        self.data = folder / "etcd"
        self.port = free_port()
        url, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{free_port()}"
        super().__init__(
            str(ETCD),
            *("--data-dir", str(self.data), "--log-level", "error"),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}", "--unsafe-no-fsync"),
            log=folder / "etcd.log",
        )

    def wipe(self) -> None:
        shutil.rmtree(self.data)


class Ledger(ledger_pb2_grpc.LedgerServicer):
    """Counts cluster epochs, keeps losses, and echoes what is relayed."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.epochs: dict[str, int] = {}
        self.lost: list[tuple[str, int]] = []
        self.server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self.server = await serve(
            lambda server: ledger_pb2_grpc.add_LedgerServicer_to_server(self, server),
            listen=self.address,
        )

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(0)
            self.server = None

    async def OpenSession(self, request: Any, context: Any) -> Any:
        self.epochs[request.cluster] = self.epochs.get(request.cluster, 0) + 1
        return ledger_pb2.OpenSessionReply(cluster_epoch=self.epochs[request.cluster])

    async def ReportLost(self, request: Any, context: Any) -> Any:
        assert request.lost_since_ns > 0
        self.lost.append((request.cluster, request.cluster_epoch))
        return ledger_pb2.ReportLostReply()

    async def Claim(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for wish in request.wishes:
            yield ledger_pb2.ClaimReply(execution=wish.execution, epoch=wish.epoch, claimed=True)

    async def Commit(self, request: Any, context: Any) -> Any:
        if not request.events:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nothing in it")
        return ledger_pb2.CommitReply(cursor=request.first + len(request.events) - 1)


@dataclass
class Agent:
    """One connection of one incarnation. Beats; `seen` is what the router said."""

    cluster: str
    incarnation: str
    address: str
    beating: bool = True
    compute_ok: bool = True
    seen: list[Any] = field(default_factory=list)
    acks: list[Any] = field(default_factory=list)
    welcome: Any = None
    ended: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _channel: Any = None
    _out: Any = None

    async def connect(self, resume: str = "") -> "Agent":
        self._channel = channel(self.address)
        self._out = asyncio.Queue()
        self._out.put_nowait(
            agent_pb2.AgentMessage(
                hello=agent_pb2.Hello(
                    cluster=self.cluster,
                    incarnation=self.incarnation,
                    region=self.cluster,
                    resume_session=resume,
                    capacity=placement.Capacity(
                        allocatable={"cpu": 4}, free={"cpu": 4}, max_executions=10
                    ),
                )
            )
        )
        self._tasks = [asyncio.create_task(self._session())]
        await until(lambda: self.welcome or self.ended, f"{self.cluster} is welcome")
        if self.welcome:
            self._tasks.append(asyncio.create_task(self._beat()))
        return self

    async def _session(self) -> None:
        async def out() -> AsyncIterator[Any]:
            while True:
                yield await self._out.get()

        try:
            async for message in agent_pb2_grpc.AgentGatewayStub(self._channel).Session(out()):
                if message.WhichOneof("body") == "welcome":
                    self.welcome = message.welcome
                    continue
                self.seen.append(message)
                if message.WhichOneof("body") == "question":
                    answer = placement.Answer(id=message.question.id, data=b"here")
                    self._out.put_nowait(agent_pb2.AgentMessage(answer=answer))
        except grpc.aio.AioRpcError:
            pass
        finally:
            self.ended = True

    async def _beat(self) -> None:
        async def beats() -> AsyncIterator[Any]:
            n = 0
            while True:
                n += 1
                while not self.beating:
                    await asyncio.sleep(0.02)
                yield agent_pb2.Heartbeat(
                    session=self.welcome.session,
                    cluster=self.cluster,
                    cluster_epoch=self.welcome.cluster_epoch,
                    n=n,
                    last_ack_n=self.acks[-1].n if self.acks else 0,
                    compute_ok=self.compute_ok,
                )
                await asyncio.sleep(HEARTBEAT)

        with contextlib.suppress(grpc.aio.AioRpcError):
            async for ack in agent_pb2_grpc.AgentGatewayStub(self._channel).Beat(beats()):
                self.acks.append(ack)

    def sets(self, kind: str) -> list[list[Any]]:
        found = [message for message in self.seen if message.WhichOneof("body") == kind]
        return [list(getattr(message, kind).assignments) for message in found]

    def byes(self) -> list[str]:
        return [m.bye.reason for m in self.seen if m.WhichOneof("body") == "bye"]

    async def die(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close(None)


@dataclass
class Federation:
    etcd: Etcd
    ledger: Ledger
    replicas: list[Process]
    addresses: list[str]
    http: list[str]
    agents: list[Agent] = field(default_factory=list)
    channels: list[Any] = field(default_factory=list)

    def router(self, number: int = 0) -> Any:
        self.channels.append(channel(self.addresses[number]))
        return placement_pb2_grpc.RouterStub(self.channels[-1])

    async def agent(
        self, cluster: str, *, at: int = 0, incarnation: str = "first", resume: str = ""
    ) -> Agent:
        agent = Agent(cluster, incarnation, self.addresses[at])
        self.agents.append(agent)
        return await agent.connect(resume)

    async def register(self, *names: str) -> None:
        """The whole set; also waits until every replica serves and has read etcd."""
        registrations = [placement.Registration(name=name, region=name) for name in names]
        request = placement.SyncRegistrationsRequest(registrations=registrations)
        await self.ask(lambda router: router.SyncRegistrations(request))
        for number in range(len(self.addresses)):
            await self.snapshot(lambda c: set(c) == set(names), "registrations", at=number)

    async def ask(self, call: Callable[[Any], Any], at: int = 0) -> Any:
        """A call, repeated while the other side is not there yet."""
        router = self.router(at)
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    return await call(router)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                await asyncio.sleep(0.05)

    async def snapshot(
        self, condition: Callable[[dict[str, Any]], Any], what: str, at: int = 0
    ) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            while True:
                reply = await self.ask(lambda r: r.Snapshot(placement.SnapshotRequest()), at)
                clusters = {one.registration.name: one for one in reply.clusters}
                if condition(clusters):
                    return clusters
                await asyncio.sleep(0.05)
        raise AssertionError(what)

    async def metrics(self, at: int = 0) -> dict[str, float]:
        host, port = self.http[at].split(":")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        lines = [line for line in text.splitlines() if line.startswith("whimbrel_router_")]
        return {name: float(value) for name, _, value in (one.rpartition(" ") for one in lines)}

    async def assign(self, execution: str, epoch: int, cluster: str, want: int = 1) -> Any:
        wish = placement.Assignment(execution=execution, epoch=epoch, cluster=cluster, want=want)
        request = placement.AssignRequest(assignments=[wish])
        return (await self.ask(lambda router: router.Assign(request))).results[0]


@contextlib.asynccontextmanager
async def federation(folder: Path, *, replicas: int = 1) -> AsyncIterator[Federation]:
    etcd, ledger = Etcd(folder), Ledger()
    http = [f"127.0.0.1:{free_port()}" for _ in range(replicas)]
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(replicas)]
    processes = [
        Process(
            *(sys.executable, "-m", "router"),
            log=folder / f"router-{number}.log",
            environment={
                "WHIMBREL_ROUTER_LISTEN": address,
                "WHIMBREL_ROUTER_HTTP": http[number],
                "WHIMBREL_ROUTER_ETCD": f"127.0.0.1:{etcd.port}",
                "WHIMBREL_ROUTER_CONTROL_PLANE": ledger.address,
                "WHIMBREL_ROUTER_TTL_SECONDS": str(TTL),
                "WHIMBREL_ROUTER_HEARTBEAT_SECONDS": str(HEARTBEAT),
                "WHIMBREL_ROUTER_LOG_FORMAT": "text",
                "GRPC_VERBOSITY": "NONE",
            },
        )
        for number, address in enumerate(addresses)
    ]
    all_of_it = Federation(etcd, ledger, processes, addresses, http)
    try:
        await ledger.start()
        for process in (etcd, *processes):
            await process.start()
        yield all_of_it
    finally:
        for agent in all_of_it.agents:
            await agent.die()
        for one in all_of_it.channels:
            await one.close(None)
        for process in (*processes, etcd):
            await process.stop()
        await ledger.stop()

"""The process behind `whimbrel up`: starts every part in order, keeps it alive, obeys `sandbox`,
stops it cleanly.

Servers are started again when they die; an agent is not: a dead region stays dead until it is
healed. All state is in the data folder, so stopping loses nothing.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import psutil

from whimbrel.cli.federation import control, faults
from whimbrel.cli.federation.parts import (
    HOST,
    Part,
    Plan,
    Ports,
    agent,
    centre,
    choose_ports,
    foundation,
)
from whimbrel.cli.federation.process import Process
from whimbrel.cli.federation.readiness import healthy, until
from whimbrel.cli.federation.relay import Relay
from whimbrel.errors import InvalidInput, NotFound, Unreachable
from whimbrel.rpc import Wire

log = logging.getLogger(__name__)

READY_SECONDS = 60.0
"""For everything to be ready. Too short fails on a slow machine, too long hides a part that
hangs."""
COMPUTE_SECONDS = 10.0
"""For agents to say how their clusters are. Shorter warns of one that is only slow, longer delays
the start when one does not answer."""
HEARD_SECONDS = 45.0
"""For a healed agent to be heard again: its own reconnect pause plus a TTL, with a wide margin."""


class Supervisor:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.folder = plan.folder
        self.processes: dict[str, Process] = {}
        self.relays: dict[str, list[Relay]] = {}
        self.states: dict[str, str] = dict.fromkeys(plan.regions, "up")
        self.ill: dict[str, str] = {}
        """Clusters that could not be asked for anything when the federation became ready."""
        self.stop_requested = asyncio.Event()
        self._ports: Ports | None = None
        self._ready = False
        self._fault = asyncio.Lock()

    @property
    def ports(self) -> Ports:
        assert self._ports is not None
        return self._ports

    # -- starting ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the federation takes work; raises, with all stopped again, when a part
        can't start."""
        self.bury_leftovers()
        self._ports = choose_ports(self.plan)
        for region in self.plan.regions:
            self.relays[region] = [Relay(HOST, port) for port in self.ports.routers]
            for relay in self.relays[region]:
                relay.cut()  # agents wait at the door until their regions are registered
                await relay.start(HOST)
            self._find_store_again(region)
        for part in foundation(self.plan, self.ports):
            await self._start(part)
        await self._await(self._healthy())
        for part in centre(self.plan, self.ports):
            await self._start(part)
        for region in self.plan.regions:
            await self._start(self._agent(region))
        await self._await(self._whole())
        self._ready = True
        for process in self.processes.values():
            process.settled()
        self.write()

    def _agent(self, region: str) -> Part:
        links = [relay.address for relay in self.relays[region]]
        return agent(self.plan, self.ports, region, links)

    async def _start(self, part: Part) -> None:
        process = Process(part, self.folder.log(part.name), self.write)
        self.processes[part.name] = process
        await process.start()
        if self._ready:
            process.settled()

    async def _await(self, ready: Awaitable[None]) -> None:
        """`ready`, unless a part ends before it."""
        goal = asyncio.ensure_future(ready)
        ends = {
            asyncio.ensure_future(process.ended()): process for process in self.processes.values()
        }
        try:
            async with asyncio.timeout(READY_SECONDS):
                done, _ = await asyncio.wait((goal, *ends), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            waiting = [p.part.name for p in self.processes.values() if p.part.health]
            raise Unreachable(
                f"not ready within {READY_SECONDS:.0f} s: one of {', '.join(waiting)}",
                remedy=f"look into {self.folder.logs}",
            ) from None
        finally:
            for task in (goal, *ends):
                if not task.done():
                    task.cancel()
        for task in done:
            if task is not goal:
                raise ends[task].failure()
        goal.result()

    async def _healthy(self) -> None:
        parts = [process.part for process in self.processes.values() if process.part.health]
        await asyncio.gather(*(healthy(part.health, part.service) for part in parts))

    async def _whole(self) -> None:
        """Servers answer, clusters are registered, and every agent has been heard."""
        await self._healthy()
        wire = self.wire()
        try:
            epochs: dict[str, int] = {}
            for region in self.plan.regions:
                cluster = await until(lambda name=region: wire.register_cluster(name, region=name))
                epochs[region] = cluster.cluster_epoch + 1
            for relays in self.relays.values():
                for relay in relays:
                    relay.open()
            await self._heard(wire, epochs)
            self.ill = await self._ill_compute(wire)
        finally:
            await wire.close()

    async def _ill_compute(self, wire: Wire) -> dict[str, str]:
        """Why clusters do not answer their agents, once each agent has said how its cluster is."""
        waiting = {name for name in self.plan.regions if self.plan.agent(name).in_kubernetes}
        ill: dict[str, str] = {}
        deadline = time.monotonic() + COMPUTE_SECONDS
        while waiting and time.monotonic() < deadline:
            for cluster in await until(wire.clusters):
                if cluster.name in waiting and (cluster.ill or cluster.allocatable.cpu):
                    waiting.discard(cluster.name)
                    if cluster.ill:
                        ill[cluster.name] = cluster.ill
            if waiting:
                await asyncio.sleep(0.05)
        return ill | dict.fromkeys(sorted(waiting), "no node is known to be ready there yet")

    async def _heard(self, wire: Wire, epochs: Mapping[str, int]) -> None:
        """Until each cluster lives with a session at least that new: a lease outlives its agent."""
        missing = dict(epochs)
        while missing:
            for cluster in await until(wire.clusters):
                if cluster.alive and cluster.cluster_epoch >= missing.get(cluster.name, 0):
                    missing.pop(cluster.name, None)
            if missing:
                await asyncio.sleep(0.05)

    def wire(self) -> Wire:
        endpoint = f"{HOST}:{self.ports.control_plane}"
        return Wire(endpoint, project="default", domain="development")

    def bury_leftovers(self) -> None:
        """What a killed supervisor left running would hold ports, locks and the agents' folders."""
        try:
            before = self.folder.sandbox()
        except NotFound:
            return
        faults.kill_again(
            {before["processes"].get(name, 0): born for name, born in before["born"].items()}
        )
        self.folder.sandbox_file.unlink(missing_ok=True)

    # -- what others see --------------------------------------------------------------------------

    def write(self) -> None:
        """`sandbox.json`, from the moment all is ready."""
        if not self._ready:
            return
        pids = {name: process.pid for name, process in self.processes.items() if process.pid}
        born: dict[str, float] = {}
        for name, pid in pids.items():
            try:
                born[name] = psutil.Process(pid).create_time()
            except psutil.Error:
                continue
        self.folder.write_sandbox(
            {
                "endpoint": f"{HOST}:{self.ports.control_plane}",
                "console": None,
                "router": ",".join(f"{HOST}:{port}" for port in self.ports.routers),
                "temporal": f"{HOST}:{self.ports.temporal}",
                "etcd": f"{HOST}:{self.ports.etcd}",
                "preset": self.plan.preset,
                "processes": {"supervisor": os.getpid(), **pids},
                "born": born,
                "regions": {
                    region: {
                        "cluster": region,
                        "store": self.plan.store_url(region),
                        "state": self.state(region),
                        "links": [relay.address for relay in self.relays[region]],
                        "compute": self.compute(region),
                        "kubeconfig": self.plan.agent(region).kubeconfig,
                    }
                    for region in self.plan.regions
                },
            }
        )

    def compute(self, region: str) -> str:
        return "kubernetes" if self.plan.agent(region).in_kubernetes else "processes"

    def state(self, region: str) -> str:
        if self.states[region] == "up" and not self.processes[f"agent/{region}"].pid:
            return "dead"
        return self.states[region]

    # -- faults -----------------------------------------------------------------------------------

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        verb, region = str(request.get("do")), str(request.get("region", ""))
        if verb == "stop":
            self.stop_requested.set()
            return {}
        if verb != "status" and region not in self.states:
            raise NotFound(
                f"there is no region {region!r} here", remedy=f"one of {', '.join(self.states)}"
            )
        verbs: dict[str, Callable[[str], Awaitable[None]]] = {
            "kill": self._kill, "pause": self._pause, "resume": self._resume,
            "cut": self._cut, "heal": self._heal,
        }  # fmt: skip
        if verb in verbs:
            async with self._fault:
                await verbs[verb](region)
            self.write()
        elif verb != "status":
            raise InvalidInput(f"unknown request {verb!r}")
        return {
            "regions": {name: self.state(name) for name in self.states},
            "compute": {name: self.compute(name) for name in self.states},
            "own_store": {name: self.plan.own_store(name) is not None for name in self.states},
        }

    def _pids(self, region: str) -> list[int]:
        process = self.processes.get(f"agent/{region}")
        agent_pid = process.pid if process else 0
        return faults.processes_of(agent_pid, self.folder.agent(region) / "workers")

    async def _kill(self, region: str) -> None:
        faults.send(self._pids(region), signal.SIGKILL)
        await self.processes[f"agent/{region}"].kill()
        faults.send(self._pids(region), signal.SIGKILL)  # what was forked meanwhile
        if (store := self.plan.own_store(region)) is not None:
            faults.lose(store)
        self.states[region] = "killed"

    async def _pause(self, region: str) -> None:
        faults.send(self._pids(region), signal.SIGSTOP)
        self.states[region] = "paused"

    async def _resume(self, region: str) -> None:
        faults.send(self._pids(region), signal.SIGCONT)
        self.states[region] = "up"

    async def _cut(self, region: str) -> None:
        for relay in self.relays[region]:
            relay.cut()
        self.states[region] = "cut"

    def _find_store_again(self, region: str) -> None:
        if (store := self.plan.own_store(region)) is not None:
            faults.find_again(store)

    async def _heal(self, region: str) -> None:
        self._find_store_again(region)
        faults.send(self._pids(region), signal.SIGCONT)
        for relay in self.relays[region]:
            relay.heal()
        self.states[region] = "up"
        wire = self.wire()
        try:
            async with asyncio.timeout(HEARD_SECONDS):
                epoch = (await until(lambda: wire.cluster(region))).cluster_epoch
                process = self.processes[f"agent/{region}"]
                if not process.pid:
                    epoch += 1
                    await process.stop()
                    await self._start(self._agent(region))
                self.write()
                await self._heard(wire, {region: epoch})
        except TimeoutError:
            raise Unreachable(
                f"{region} is started but was not heard within {HEARD_SECONDS:.0f} s",
                remedy=f"look into {self.folder.log(f'agent/{region}')}",
            ) from None
        finally:
            await wire.close()

    # -- stopping ---------------------------------------------------------------------------------

    async def stop(self) -> None:
        """In reverse order: agents, routers and control plane, then what they stand on."""
        for relays in self.relays.values():
            for relay in relays:
                relay.heal()  # a cut region may say good-bye
        layers = ("agent/", "router", "control-plane", "temporal", "etcd")
        for layer in layers:
            await asyncio.gather(
                *(p.stop() for name, p in self.processes.items() if name.startswith(layer))
            )
            if layer == "agent/":
                for region in self.states:
                    faults.send(self._pids(region), signal.SIGKILL)
        for relays in self.relays.values():
            for relay in relays:
                await relay.close()
        self._ready = False
        self.folder.sandbox_file.unlink(missing_ok=True)
        self.folder.socket.unlink(missing_ok=True)


async def supervise(plan: Plan, *, ready: Callable[[Supervisor, float], None]) -> None:
    """Runs the federation until SIGTERM, SIGINT or `whimbrel down`; `ready` is told with the
    seconds it took."""
    supervisor = Supervisor(plan)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop_requested.set)
    began = time.monotonic()
    door: asyncio.Server | None = None
    starting = asyncio.ensure_future(supervisor.start())
    stopping = asyncio.ensure_future(supervisor.stop_requested.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            door = await control.serve(plan.folder, supervisor.handle)
            ready(supervisor, time.monotonic() - began)
            await stopping
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        if door is not None:
            door.close()
        await supervisor.stop()

"""The composition root of the router: settings -> etcd, control plane -> services -> doors.

Started as `python -m router`; any number of replicas run side by side on one etcd. Nothing that
matters is kept here or in etcd: SQL and the agents can tell everything again.
"""

import asyncio
import logging
import sys
import time

import grpc.aio
from prometheus_client import REGISTRY
from pydantic import ValidationError
from pydantic_settings import CliApp
from whimbrel.errors import WhimbrelError
from whimbrel.service.http import serve_http
from whimbrel.service.logs import setup_logging
from whimbrel.service.process import run_until_stopped
from whimbrel.service.rpc import channel, serve

from router.assignments import Assignments
from router.etcd import Etcd
from router.failback import FailBack
from router.gateway.rpc import Gateway
from router.inventory import Inventory
from router.ledger import Ledger
from router.lookout import Lookout
from router.metrics import Metrics
from router.rpc import RouterService
from router.sessions import Sessions, Terms
from router.settings import Settings

log = logging.getLogger("router")


def steady() -> float:
    """Seconds that go on while the machine sleeps, where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set; then says goodbye to the agents and leaves their leases alone."""
    ttl = settings.ttl_seconds
    upstream = channel(settings.control_plane)
    ledger = Ledger(upstream, timeout=settings.control_plane_timeout_seconds)
    etcd = Etcd(
        settings.etcd_endpoints,
        timeout=settings.etcd_timeout_seconds,
        namespace=settings.etcd_namespace,
    )
    inventory = Inventory()
    metrics = Metrics(REGISTRY)
    terms = Terms(ttl, settings.heartbeat_seconds, settings.stall_seconds, settings.gateway)
    sessions = Sessions(etcd, inventory, ledger, terms=terms, clock=steady)
    lookout = Lookout(etcd, inventory, ledger, ttl=ttl, clock=steady, metrics=metrics)
    returning = settings.fail_back
    failback = FailBack(etcd, inventory, lookout, terms=returning, tick=ttl / 20)
    assignments = Assignments(etcd, inventory, metrics=metrics)
    service = RouterService(
        inventory, assignments, sessions, lookout, ttl=ttl, clock=steady, metrics=metrics
    )
    metrics.observe(
        sessions=lambda: len(inventory.sessions),
        suspected=lambda: len(lookout.members.losses),
        returning=lambda: len(inventory.returns),
    )
    gateway = Gateway(sessions, ledger)

    def doors(server: grpc.aio.Server) -> None:
        service.register(server)
        gateway.register(server)

    try:
        server = await serve(doors, listen=settings.listen)
        http = await serve_http(settings.http, ready=lambda: inventory.current)
        log.info("listening on %s", settings.listen, extra={"replica": settings.name})
        log.info(
            "after a loss: %g s of quarantine, %g s of ramp", returning.quarantine, returning.ramp
        )
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(inventory.run(etcd), name="follow etcd"),
                tasks.create_task(lookout.watch_etcd(), name="is etcd there?"),
                tasks.create_task(lookout.watch_control_plane(), name="is the ledger there?"),
                tasks.create_task(lookout.judge(), name="who is lost?"),
                tasks.create_task(lookout.report(), name="report losses"),
                tasks.create_task(failback.run(), name="note who is back"),
                tasks.create_task(sessions.write_capacities(), name="write capacities"),
                tasks.create_task(sessions.settle_doubts(), name="end streams that don't count"),
            ]
            await stop.wait()
            sessions.close()
            await server.stop(settings.stop_seconds)
            if http is not None:
                http.close()
            for task in running:
                task.cancel()
    finally:
        await service.close()
        await etcd.close()
        await upstream.close(None)


def main() -> int:
    try:
        settings = CliApp.run(Settings)
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "settings"
            print(f"router: {where}: {problem['msg']}", file=sys.stderr)  # noqa: T201
        return 2
    setup_logging("router", settings.log_level, settings.log_format)
    try:
        asyncio.run(run_until_stopped(lambda stop: run(settings, stop)))
    except WhimbrelError as error:
        print(f"router: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

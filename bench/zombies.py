"""Copies that go on behind a cut link or a frozen agent: how long, what they cost, and that
exclusive work never has two.

Called by the failure report with a running federation; all of it is read from the stamps that the
tasks leave themselves.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from whimbrel import Client

from bench.federation import Federation
from bench.moves import Flow, Stamp, await_epoch, launched, pause, stamps

LATE_SECONDS = 0.5
"""After the next copy has begun: what the last one still does in this time counts against it."""


@dataclass(slots=True)
class Alone:
    """`gaps`: seconds from the last thing a lost try did to the first of the next one; an overlap
    is a negative one."""

    gaps: list[float] = field(default_factory=list[float])

    @property
    def overlaps(self) -> int:
        return sum(gap < 0 for gap in self.gaps)


def exclusive(
    whole: Federation, client: Client, flow: Flow, *, folder: Path, losses: int, runs: int
) -> Alone:
    """A frozen agent, or a cut link, in turn."""
    out = Alone()
    for index in range(losses):
        place = folder / f"exclusive-{index}"
        with running(client, flow, place, runs) as (region, epochs):
            with hurt(whole, region, freeze=index % 2 == 0):
                for name, epoch in epochs.items():
                    await_epoch(place, name, above=epoch)
                time.sleep(LATE_SECONDS)
                out.gaps += [pause(stamps(place, name), above=e) for name, e in epochs.items()]
            # Woken, the old copy has another chance to do what it must not.
            time.sleep(LATE_SECONDS)
            out.gaps += [pause(stamps(place, name), above=e) for name, e in epochs.items()]
    return out


@dataclass(slots=True)
class Waste:
    """Seconds a run: two copies at work, work done again because it was after the checkpoint, and
    work in all."""

    double_seconds: list[float] = field(default_factory=list[float])
    repeated_seconds: list[float] = field(default_factory=list[float])
    useful_seconds: list[float] = field(default_factory=list[float])


def cuts(
    whole: Federation, client: Client, flow: Flow, *, folder: Path, cuts: int, runs: int
) -> Waste:
    out = Waste()
    for index in range(cuts):
        place = folder / f"cut-{index}"
        with running(client, flow, place, runs) as (region, epochs):
            cut_ns = time.time_ns()
            with hurt(whole, region, freeze=False):
                for name, epoch in epochs.items():
                    await_epoch(place, name, above=epoch)
            time.sleep(LATE_SECONDS)
            for name, epoch in epochs.items():
                count(out, stamps(place, name), epoch=epoch, cut_ns=cut_ns)
    return out


def count(out: Waste, found: list[Stamp], *, epoch: int, cut_ns: int) -> None:
    old = [stamp.at_ns for stamp in found if stamp.epoch <= epoch]
    new = [stamp.at_ns for stamp in found if stamp.epoch > epoch]
    out.double_seconds.append(max(0, max(old) - min(new)) / 1e9)
    # All that the old copy did after the cut is done again, and so is what no checkpoint held.
    out.repeated_seconds.append(max(0, max(old) - cut_ns) / 1e9)
    out.useful_seconds.append((max(new) - min(old)) / 1e9)


@dataclass(slots=True)
class Flaps:
    """`failovers` of the runs that were on the flapping link, `elsewhere` of runs that were not."""

    seconds: float = 0.0
    flaps: int = 0
    sessions: int = 0
    failovers: int = 0
    elsewhere: int = 0


UP_SECONDS, DOWN_SECONDS = 2.0, 4.0


def flapping(
    whole: Federation, client: Client, flow: Flow, *, folder: Path, seconds: float
) -> Flaps:
    out = Flaps()
    with running(client, flow, folder, 6) as (region, hit):
        before = client.cluster(region).cluster_epoch
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            whole.sandbox_do("cut", region)
            time.sleep(DOWN_SECONDS)
            whole.sandbox_do("heal", region)
            time.sleep(UP_SECONDS)
            out.flaps += 1
        out.seconds = time.monotonic() - began
        out.sessions = client.cluster(region).cluster_epoch - before
        for view in client.list(limit=100):
            causes = [one.cause for one in client.get(view.name).view.placements]
            moved = causes.count("failover")
            out.failovers += moved if view.name in hit else 0
            out.elsewhere += 0 if view.name in hit else moved
    return out


@contextlib.contextmanager
def running(
    client: Client, flow: Flow, place: Path, runs: int
) -> Iterator[tuple[str, dict[str, int]]]:
    """Runs under way; the region that has most of them, and the epochs of those that are there."""
    names = [f"{place.name}-{index}" for index in range(runs)]
    with launched(client, flow, place, names) as held:
        where: dict[str, dict[str, int]] = defaultdict(dict)
        for name, run in held.items():
            await_epoch(place, name, above=0)
            view = run.refresh()
            where[view.region][name] = view.epoch
        region = max(where, key=lambda one: len(where[one]))
        yield region, where[region]


@contextlib.contextmanager
def hurt(whole: Federation, region: str, *, freeze: bool) -> Iterator[None]:
    """A frozen agent whose tasks go on, or a cut link; well again afterwards."""
    if freeze:
        whole.freeze_agent(region)
    else:
        whole.sandbox_do("cut", region)
    try:
        yield
    finally:
        if freeze:
            whole.thaw_agent(region)
        whole.sandbox_do("heal", region)

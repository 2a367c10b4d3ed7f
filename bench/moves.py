"""Moves under measurement: planned ones with a checkpoint of 10 MB, a region with a thousand runs
lost at once, exclusive work whose region dies.

Called by `__main__` and the failure report with a running federation. What a run really did comes
from the stamps its tasks leave, not from what any server says.
"""

import contextlib
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from whimbrel import Client
from whimbrel.client import Execution
from whimbrel.spec import PlacementPolicy

from bench.federation import Federation, load_program

PATIENCE_SECONDS = 180.0
"""For one move. What takes longer counts as lost, and the measure fails."""
Flow = tuple[str, str]


def register(client: Client, workflow: str) -> Flow:
    """A program of `programs/moving.py`: its name and version."""
    view = client.register(getattr(load_program("moving"), workflow))[0]
    return view.name, view.version


@dataclass(frozen=True, slots=True)
class Stamp:
    what: str
    region: str
    epoch: int
    attempt: int
    at_ns: int


def stamps(folder: Path, name: str) -> list[Stamp]:
    path = folder / f"{name}.stamps"
    found: list[Stamp] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        what, region, epoch, attempt, at = line.split()
        found.append(Stamp(what, region, int(epoch), int(attempt), int(at)))
    return found


def await_epoch(folder: Path, name: str, *, above: int) -> list[Stamp]:
    """The stamps of the run once a try at a later epoch than `above` has begun."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = stamps(folder, name)
        if any(stamp.epoch > above for stamp in found):
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"{name} did not go on after epoch {above}")
        time.sleep(0.02)


def pause(found: list[Stamp], *, above: int) -> float:
    """Seconds between the last thing done up to that epoch and the first one after it."""
    before = max(stamp.at_ns for stamp in found if stamp.epoch <= above)
    after = min(stamp.at_ns for stamp in found if stamp.epoch > above)
    return (after - before) / 1e9


@contextlib.contextmanager
def launched(client: Client, flow: Flow, folder: Path, names: list[str], **more: PlacementPolicy):  # type: ignore[no-untyped-def]
    """Runs that go on until the block is left; then they are let go and waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = {
        name: client.launch(
            flow[0], {"folder": str(folder), "name": name}, version=flow[1], name=name, **more
        )
        for name in names
    }
    try:
        yield runs
    finally:
        (folder / "open").touch()
        for run in runs.values():
            with contextlib.suppress(TimeoutError):
                run.wait(timeout=PATIENCE_SECONDS)


def migrations(client: Client, flow: Flow, *, folder: Path, count: int) -> list[float]:
    """Seconds in which a run did nothing, for each of `count` planned moves, one after the other:
    A to B to C and so on."""
    found: list[float] = []
    with launched(client, flow, folder, ["migrating"]) as runs:
        run: Execution = runs["migrating"]
        await_epoch(folder, run.name, above=0)
        for _ in range(count):
            epoch = run.refresh().epoch
            time.sleep(0.5)  # it works for a while where it is
            run.migrate()
            found.append(pause(await_epoch(folder, run.name, above=epoch), above=epoch))
            settled(run)
    return found


def settled(run: Execution) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while (moved := run.refresh().migration) is None or not moved.ended_ns:
        if time.monotonic() > end:
            raise TimeoutError(f"the move of {run.name} did not end")
        time.sleep(0.05)


@dataclass(slots=True)
class Crowd:
    """`rate` is runs claimed elsewhere a second, from the first to the last; the latencies are of
    submits to a region that lives, before and during the takeover."""

    moved: int = 0
    rate: float = 0.0
    whole_seconds: float = 0.0
    before: list[float] = field(default_factory=list[float])
    during: list[float] = field(default_factory=list[float])


def crowd(
    whole: Federation, client: Client, gated: Flow, one: Flow, *, folder: Path, runs: int
) -> Crowd:
    """Kills a region that holds `runs` runs, while others are submitted to the next one."""
    out = Crowd()
    regions = list(whole.sandbox["regions"])
    lost, other = regions[0], regions[1]
    first = PlacementPolicy(regions=(lost, *regions[1:]))
    names = [f"{folder.name}-{index}" for index in range(runs)]
    with launched(client, gated, folder, names, placement=first) as held:
        _await(lambda: _owned(client, lost) >= runs, f"{lost} holds {runs} runs")
        _submit(client, one, other, out.before, until=lambda: len(out.before) >= 60)
        killed = whole.kill_agent(lost)
        over = threading.Event()
        busy = threading.Thread(
            target=_submit, args=(client, one, other, out.during), kwargs={"until": over.is_set}
        )
        busy.start()
        try:
            _await(lambda: _owned(client, lost) == 0, f"nothing is left in {lost}")
            claims = _claims(held, after_ns=int(killed * 1e9))
        finally:
            over.set()
            busy.join()
        out.moved = len(claims)
        out.whole_seconds = claims[-1] / 1e9 - killed
        out.rate = (len(claims) - 1) / max((claims[-1] - claims[0]) / 1e9, 1e-3)
    whole.heal(lost)
    return out


def _claims(held: dict[str, Execution], *, after_ns: int) -> list[int]:
    """When each run was claimed elsewhere, in order of time; waits until all are."""
    found: list[int] = []
    for name, run in held.items():
        at: list[int] = []

        def claimed(run: Execution = run, at: list[int] = at) -> bool:
            view = run.refresh()
            at[:] = [e.at_ns for e in view.timeline if e.kind == "claimed" and e.at_ns > after_ns]
            return bool(at)

        _await(claimed, f"{name} is claimed elsewhere")
        found.append(at[0])
    return sorted(found)


def _owned(client: Client, region: str) -> int:
    return client.cluster(region).owned_executions


def _submit(client: Client, one: Flow, region: str, samples: list[float], *, until) -> None:  # type: ignore[no-untyped-def]
    policy = PlacementPolicy(regions=(region,))
    while not until():
        began = time.perf_counter()
        client.launch(one[0], {"index": 0}, version=one[1], placement=policy)
        samples.append(time.perf_counter() - began)
        time.sleep(0.05)


def _await(probe, what: str) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + PATIENCE_SECONDS
    while not probe():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE_SECONDS:.0f} s: {what}")
        time.sleep(0.1)

"""After a loss: quarantine, ramp, the flap guard, and what they mean for placement."""

from dataclasses import replace

import pytest
from whimbrel.spec import PlacementPolicy

from router.clusters import Cluster, Requirement, encode, return_from
from router.etcd import Deleted, Put
from router.inventory import Inventory
from router.placement import place
from router.returns import SECOND, Loss, Return, Standing, Terms, lost, returned, standing
from tests.router.test_inventory import WHOLE, entry
from tests.router.test_placement import among, cluster, wish

TERMS = Terms(quarantine=30, ramp=60, flap_losses=3, flap_window=600, longest=200)
T = 1_000_000 * SECOND


def at(seconds: float) -> int:
    return T + round(seconds * SECOND)


def losses(*seconds: float) -> Return:
    record = None
    for number, second in enumerate(seconds, 1):
        record = lost(record, Loss("east", number, at(second)), TERMS) or record
    assert record is not None
    return record


def back(record: Return, session: int, seconds: float) -> Return:
    came = returned(record, session, loss=None, now_ns=at(seconds), terms=TERMS)
    assert came is not None
    return came


def share(record: Return, seconds: float) -> float:
    found = standing(record, now_ns=at(seconds))
    return 1.0 if found is None else found.share


def test_quarantine_then_a_share_that_grows_to_all() -> None:
    record = back(losses(0), 2, 100)
    assert [share(record, 100 + s) for s in (0, 29.9, 30, 60, 89.4, 90, 500)] == [
        *(0.0, 0.0, 0.0),
        *(0.5, pytest.approx(0.99), 1.0, 1.0),
    ]


def test_a_loss_counts_from_its_noting_not_from_its_return() -> None:
    """Between the session and its noting nothing new may slip in."""
    assert share(losses(0), 3600) == 0.0


def test_a_clock_set_back_does_not_let_it_in() -> None:
    assert share(back(losses(0), 2, 100), 50) == 0.0


def test_people_read_how_long_it_takes() -> None:
    record = back(losses(0), 2, 100)
    said = standing(record, now_ns=at(112))
    assert said is not None
    assert said.why == (
        "back since 12 s after a loss, new work after 18 s more unless nobody else takes it"
    )
    ramping = standing(record, now_ns=at(145))
    assert ramping is not None
    assert ramping.why == "back since 45 s after a loss, 25% of the new runs go there again"
    often = standing(back(losses(0, 50), 3, 60), now_ns=at(60))
    assert often is not None
    assert often.why.startswith("lost 2 times lately, back since 0 s")


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ((0,), 30),
        ((0, 10), 30),
        ((0, 10, 20), 60),
        ((0, 10, 20, 30), 120),
        ((0, 10, 20, 30, 40), 200),
        (tuple(range(0, 590, 10)), 200),
        ((0, 10, 611), 30),
        ((0, 300, 599), 60),
    ],
)
def test_each_loss_of_a_flapping_link_doubles_the_quarantine(
    times: tuple[float, ...], seconds: float
) -> None:
    assert losses(*times).quarantine == seconds


def test_the_same_loss_counts_once() -> None:
    record = losses(0)
    assert lost(record, Loss("east", 1, at(5)), TERMS) is None
    came = back(record, 2, 10)
    assert returned(came, 2, loss=None, now_ns=at(11), terms=TERMS) is None
    assert returned(record, 1, loss=None, now_ns=at(11), terms=TERMS) is None


def test_a_session_that_counts_lower_is_a_return_too() -> None:
    """SQL came from a backup."""
    record = replace(losses(0), cluster_epoch=9)
    assert back(record, 4, 10).back_epoch == 4
    assert lost(back(record, 4, 10), Loss("east", 4, at(20)), TERMS) is not None


def test_a_loss_before_this_replicas_time() -> None:
    missed = Loss("east", 0, at(0))

    def seen(before: Return | None, session: int) -> Return | None:
        return returned(before, session, loss=missed, now_ns=at(50), terms=TERMS)

    found = seen(None, 7)
    assert found is not None
    assert (found.cluster_epoch, found.losses, found.back_epoch) == (6, (at(0),), 7)
    assert seen(None, 1) is None, "the first session of all returns from nowhere"
    assert seen(back(losses(0), 7, 50), 7) is None, "another replica has noted it"
    again = seen(back(losses(0), 5, 20), 7)
    assert again is not None
    assert len(again.losses) == 2


@pytest.mark.parametrize("up", range(31, 600, 19))
def test_a_flapping_cluster_gets_new_work_a_bounded_number_of_times(up: int) -> None:
    """For ten minutes it is up for so many seconds and then lost for one. Without the guard the
    worst of these takes new work 18 times, each for a second."""
    record, in_use, now = None, 0, 0
    for epoch in range(1, 600 // (up + 1) + 1):
        record = lost(record, Loss("east", epoch, at(now)), TERMS)
        assert record is not None
        record = back(record, epoch + 1, now + 1)
        in_use += up > record.quarantine
        now += up + 1
    assert in_use <= 4


def test_it_comes_back_from_etcd_as_it_was_written() -> None:
    record = back(losses(0, 10), 3, 20)
    assert return_from(encode(record)) == record
    inventory = Inventory()
    inventory.apply(WHOLE)
    inventory.apply(Put(entry("/returns/east", record)))
    east = inventory.judged(lambda _: False, now_ns=at(30))["east"]
    assert east.standing == standing(record, now_ns=at(30))
    assert inventory.judged(lambda _: False, now_ns=at(900))["east"].standing is None
    inventory.apply(Deleted("/returns/east"))
    assert inventory.judged(lambda _: False, now_ns=at(30))["east"].standing is None


def held_back(name: str, share: float = 0.0, **more: object) -> Cluster:
    return replace(cluster(name, **more), standing=Standing(share, "back since 1 s"))  # type: ignore[arg-type]


def test_new_work_prefers_everyone_else() -> None:
    known = among(held_back("east", free=64, cpu=64), cluster("west", free=-9))
    placement = place(wish(), known)
    assert placement.cluster == "west"
    [east, _] = placement.verdicts
    assert east.accepted
    assert east.why == "back since 1 s; 64 cores free"
    ordered = wish(regions=("east", "west"), prefer=("disk=fast",))
    assert place(ordered, known).cluster == "west", "also against the wanted order of regions"


@pytest.mark.parametrize(
    "requirement",
    [
        wish(clusters=("east",)),
        wish(regions=("east",)),
        Requirement("p/d/x", allowed_regions=("east",)),
        Requirement("p/d/x", PlacementPolicy(), avoid=("west",)),
    ],
)
def test_a_run_with_nowhere_else_to_go_starts_there_at_once(requirement: Requirement) -> None:
    assert place(requirement, among(held_back("east"), cluster("west"))).cluster == "east"


def test_nobody_waits_for_a_quarantine() -> None:
    full = cluster("west", most=1, held=1)
    assert place(wish(), among(held_back("east"), full)).cluster == "east"
    both = among(held_back("east", free=1), held_back("west", free=2))
    assert place(wish(), both).cluster == "west"


def test_the_share_is_of_the_runs_and_only_grows() -> None:
    runs = [wish(f"p/d/{number}") for number in range(400)]

    def chosen(share: float) -> set[str]:
        known = among(held_back("east", share, free=64, cpu=64), cluster("west"))
        return {run.execution for run in runs if place(run, known).cluster == "east"}

    quarter, half = chosen(0.25), chosen(0.5)
    assert 70 <= len(quarter) <= 130
    assert 170 <= len(half) <= 230
    assert quarter < half
    assert chosen(0.0) == set()

"""Answers of Place count against each other until their keys are there."""

from router.clusters import Cluster
from router.inventory import Assigned
from router.placement import Placement, place_all
from router.reservations import RESERVED_SECONDS, Reservations
from tests.router.test_inventory import RUN
from tests.router.test_placement import among, cluster, wish


class Door:
    """Place as the door does it, a call an execution."""

    def __init__(self, *clusters: Cluster) -> None:
        self.now = 0.0
        self.clusters = among(*clusters)
        self.reservations = Reservations(clock=lambda: self.now)

    def place(self, name: str) -> Placement:
        [placement] = place_all([wish(name)], self.reservations.counted(self.clusters))
        self.reservations.reserve([placement])
        return placement


def test_a_burst_of_calls_respects_the_limit() -> None:
    door = Door(cluster("a", most=2), cluster("b", most=1))
    chosen = [door.place(f"p/d/{number}") for number in range(4)]
    assert sorted(one.cluster for one in chosen) == ["", "a", "a", "b"]
    assert chosen[-1].reason == "no_capacity"


def test_a_burst_of_calls_spreads() -> None:
    door = Door(cluster("a", free=4), cluster("b", free=3))
    chosen = [door.place(f"p/d/{number}").cluster for number in range(8)]
    assert 3 <= chosen.count("a") <= 5


def test_asking_again_for_the_same_run_takes_no_second_place() -> None:
    door = Door(cluster("a", most=1))
    assert [door.place("p/d/x").cluster for _ in range(3)] == ["a"] * 3
    assert door.place("p/d/y").cluster == ""


def test_a_reservation_ends_by_itself() -> None:
    door = Door(cluster("a", most=1))
    door.place("p/d/x")
    door.now = RESERVED_SECONDS - 0.1
    assert door.place("p/d/y").cluster == ""
    door.now = RESERVED_SECONDS
    assert door.place("p/d/y").cluster == "a"


def test_an_older_reservation_that_was_renewed_does_not_hide_behind_a_younger_one() -> None:
    door = Door(cluster("a", most=2))
    door.place("p/d/x")
    door.now = 1.0
    door.place("p/d/y")
    door.now = 1.5
    door.place("p/d/x")
    door.now = 1.0 + RESERVED_SECONDS
    counted = door.reservations.counted(door.clusters)
    assert counted["a"].assigned == {"p/d/x"}


def test_the_key_takes_its_place() -> None:
    door = Door(cluster("east", most=1))
    door.place(RUN.execution)
    door.reservations.on_news(Assigned(RUN))
    assert door.reservations.counted(door.clusters) == door.clusters

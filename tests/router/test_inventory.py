"""etcd's changes as a snapshot, and what the listeners are told of them."""

from whimbrel.spec import Assignment

from router.clusters import Capacity, Registration, Session, encode
from router.etcd import Cut, Deleted, Entry, Listed, Put
from router.inventory import Assigned, Inventory, Reread, SessionChanged, Unassigned

EAST = Registration("east", "us", {"disk": "fast"})
SESSION = Session("east", "s", 2, "i", 7, "host:1", "t")
RUN = Assignment("p/d/x", 1, "east")


def entry(key: str, value: object) -> Entry:
    return Entry(key, encode(value))  # type: ignore[arg-type]  # one of the four kinds


WHOLE = Listed(
    [
        entry("/registrations/east", EAST),
        entry("/sessions/east", SESSION),
        entry("/capacity/east", Capacity(max_executions=3)),
        entry("/assignments/p/d/x", RUN),
        Entry("/somebody/else", b"?"),
    ]
)


def test_everything_comes_back_as_it_was_written() -> None:
    inventory = Inventory()
    assert inventory.apply(WHOLE) == [Reread()]
    east = inventory.snapshot()["east"]
    assert (east.registration, east.session) == (EAST, SESSION)
    assert east.capacity == Capacity(max_executions=3)
    assert east.assigned == {"p/d/x"}
    assert inventory.assigned_to("east") == [RUN]
    assert inventory.current


def test_a_move_is_a_change_here_and_a_removal_there() -> None:
    inventory = Inventory()
    inventory.apply(WHOLE)
    moved = Assignment("p/d/x", 2, "west")
    news = inventory.apply(Put(entry("/assignments/p/d/x", moved)))
    assert news == [Assigned(moved), Unassigned(RUN)]
    assert inventory.apply(Deleted("/assignments/p/d/x")) == [Unassigned(moved)]
    assert inventory.apply(Deleted("/assignments/p/d/x")) == []
    assert inventory.snapshot()["east"].assigned == frozenset()


def test_a_snapshot_does_not_change_once_given() -> None:
    inventory = Inventory()
    inventory.apply(WHOLE)
    before = inventory.snapshot()
    assert inventory.apply(Deleted("/sessions/east")) == [SessionChanged("east")]
    assert before["east"].session == SESSION
    assert inventory.snapshot()["east"].session is None


def test_a_wiped_etcd_takes_nothing_away_by_name() -> None:
    inventory = Inventory()
    inventory.apply(WHOLE)
    assert inventory.apply(Cut()) == []
    assert not inventory.current
    assert inventory.outages == 1
    assert inventory.apply(Listed([])) == [Reread()]
    assert inventory.snapshot() == {}


def test_an_unreadable_key_counts_as_absent() -> None:
    inventory = Inventory()
    inventory.apply(WHOLE)
    assert inventory.apply(Put(Entry("/assignments/p/d/x", b"{"))) == [Unassigned(RUN)]

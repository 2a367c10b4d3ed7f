"""An agent that holds something else than what is assigned to it is told everything again."""

from whimbrel.service.held import HeldDigest
from whimbrel.spec import Assignment

from router import clusters as keys
from router.clusters import encode
from router.etcd import Deleted, Entry, Listed, Put
from router.held import FIRST_SECONDS, LONGEST_SECONDS, Difference, compare
from router.inventory import Inventory


def said(*beats: tuple[float, bool]) -> list[float]:
    """When everything is said again, of heartbeats that are alike or not."""
    before: Difference | None = None
    times: list[float] = []
    for now, same in beats:
        before, again = compare(before, same=same, now=now)
        times += [now] if again else []
    return times


def test_what_stays_different_is_said_again_less_and_less_often() -> None:
    times = said(*((float(now), False) for now in range(3000)))
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert gaps[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert max(gaps) == LONGEST_SECONDS


def test_what_is_on_its_way_is_left_alone() -> None:
    busy = [(float(now), now % 29 == 0) for now in range(1000)]
    assert said(*busy) == []
    assert said((0.0, False), (29.0, True), (31.0, False), (60.0, False)) == []


def test_the_digest_has_no_order_and_forgets() -> None:
    one, other = HeldDigest(), HeldDigest()
    for execution, epoch in (("a", 1), ("b", 2), ("c", 1)):
        one.flip(execution, epoch)
    for execution, epoch in (("c", 1), ("b", 2)):
        other.flip(execution, epoch)
    assert str(one) != str(other)
    one.flip("a", 1)
    assert str(one) == str(other)
    assert str(HeldDigest()) == "0" * 64


def put(inventory: Inventory, assignment: Assignment, *, listed: bool = False) -> None:
    entry = Entry(keys.ASSIGNMENTS + assignment.execution, encode(assignment))
    inventory.apply(Listed([entry]) if listed else Put(entry))


def test_the_router_keeps_the_digest_of_what_it_assigned() -> None:
    inventory = Inventory()
    nothing = inventory.held("east")
    put(inventory, Assignment("a", 1, "east"))
    put(inventory, Assignment("b", 1, "east"))
    both = inventory.held("east")
    put(inventory, Assignment("b", 2, "west"))
    put(inventory, Assignment("a", 2, "east"))
    expected = HeldDigest()
    expected.flip("a", 2)
    assert inventory.held("east") == str(expected) != both
    inventory.apply(Deleted(keys.ASSIGNMENTS + "a"))
    assert inventory.held("east") == nothing
    put(inventory, Assignment("a", 2, "east"), listed=True)
    assert inventory.held("east") == str(expected)
    assert inventory.held("west") == nothing

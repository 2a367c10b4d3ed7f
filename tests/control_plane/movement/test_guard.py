"""When a loss is held: most of the agents, at once, of three or more."""

from control_plane.movement.guard import Sight, mass_loss, returned

SECOND = 1_000_000_000
NOW = 1_000 * SECOND


def alive(name: str, *, epoch: int = 1) -> Sight:
    return Sight(cluster=name, alive=True, cluster_epoch=epoch)


def lost(name: str, *, seconds_before: float = 0, epoch: int = 1) -> Sight:
    since = NOW - int(seconds_before * SECOND)
    return Sight(cluster=name, alive=False, cluster_epoch=epoch, lost_since_ns=since)


def held(*sights: Sight) -> bool:
    return mass_loss(sights, since_ns=NOW, ttl_ms=2000) != ""


def test_one_of_three_is_a_loss() -> None:
    assert not held(lost("a"), alive("b"), alive("c"))


def test_two_of_three_is_us() -> None:
    assert held(lost("a"), lost("b", seconds_before=4), alive("c"))


def test_half_is_not_more_than_half() -> None:
    assert not held(lost("a"), lost("b"), alive("c"), alive("d"))


def test_of_two_agents_none_is_held() -> None:
    assert not held(lost("a"), lost("b"))


def test_who_was_lost_before_does_not_count() -> None:
    assert not held(lost("a"), lost("b", seconds_before=4.1), alive("c"), alive("d"))
    assert not held(lost("a"), lost("b", seconds_before=60), lost("c", seconds_before=60))


def test_who_never_was_there_does_not_count() -> None:
    assert not held(lost("a"), alive("b"), lost("c", epoch=0), lost("d", epoch=0))


def test_a_later_session_is_a_return() -> None:
    assert returned([alive("a", epoch=4)], cluster="a", cluster_epoch=3)
    assert not returned([alive("a", epoch=3)], cluster="a", cluster_epoch=3)
    assert not returned([lost("a", epoch=4)], cluster="a", cluster_epoch=3)

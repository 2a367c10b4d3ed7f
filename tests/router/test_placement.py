"""Placement by example and by property: the must rules in order, the preferences apart."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whimbrel.spec import PlacementPolicy, Resources

from router.clusters import (
    Capacity,
    Cluster,
    Offer,
    Registration,
    Requirement,
    Session,
    capacity_from,
    encode,
)
from router.placement import place, place_all
from router.rules import rank

GB = 1 << 30


def cluster(
    name: str,
    *,
    region: str = "",
    free: float = 4,
    cpu: float = 4,
    gpu: int = 0,
    most: int = 0,
    held: int = 0,
    assigned: int = 0,
    scheduling: str = "active",
    alive: bool = True,
    suspected: bool = False,
    labels: dict[str, str] | None = None,
    ill: str = "",
    offer: Offer | None = None,
) -> Cluster:
    return Cluster(
        Registration(name, region or name, labels or {}, scheduling),
        Session(name, "s", 1, "i", 1, "g", "t") if alive else None,
        Capacity(
            allocatable=Resources(cpu=cpu, mem_bytes=8 * GB, gpu=gpu),
            free=Resources(cpu=free),
            max_executions=most,
            held_executions=held,
            ill=ill,
            offer=offer,
        ),
        frozenset(f"p/d/{name}-{number}" for number in range(assigned)),
        suspected,
    )


def among(*clusters: Cluster) -> dict[str, Cluster]:
    return {one.name: one for one in clusters}


def wish(name: str = "p/d/x", **policy: object) -> Requirement:
    return Requirement(name, PlacementPolicy(**policy))  # type: ignore[arg-type]  # by keyword


EAST = cluster("east")
OFFER = Offer(images=("registry.local/*",), refused_images=("registry.local/bad",), secrets=("a",))
OFFERING = cluster("east", offer=OFFER)


@pytest.mark.parametrize(
    ("refused", "requirement", "rule"),
    [
        (
            replace(EAST, registration=Registration("east", "east", {}, "cordoned")),
            {},
            "scheduling",
        ),
        (replace(EAST, session=None), {}, "alive"),
        (replace(EAST, suspected=True), {}, "alive"),
        (EAST, {"policy": PlacementPolicy(regions=("eu-*",))}, "region"),
        (EAST, {"allowed_regions": ("eu",)}, "residency"),
        (EAST, {"policy": PlacementPolicy(clusters=("west*",))}, "cluster"),
        (EAST, {"avoid": ("east",)}, "avoid"),
        (OFFERING, {"images": ("registry.local/x", "elsewhere/x")}, "image"),
        (OFFERING, {"images": ("registry.local/bad",)}, "image"),
        (OFFERING, {"secrets": ("a", "b")}, "secrets"),
        (cluster("east", offer=Offer()), {"secrets": ("a",)}, "secrets"),
        (cluster("east", ill="timed out"), {}, "compute"),
        (cluster("east", ill="timed out", offer=OFFER), {"secrets": ("b",)}, "secrets"),
        (EAST, {"largest": Resources(cpu=5)}, "fits"),
        (EAST, {"largest": Resources(mem_bytes=9 * GB)}, "fits"),
        (EAST, {"largest": Resources(gpu=1)}, "fits"),
        (replace(EAST, capacity=None), {}, "fits"),
        (cluster("east", most=2, held=2), {}, "room"),
        (cluster("east", most=2, assigned=2), {}, "room"),
    ],
)
def test_each_must_rule_refuses(refused: Cluster, requirement: dict, rule: str) -> None:
    placement = place(Requirement("p/d/x", **requirement), among(refused, cluster("other")))
    verdict = next(v for v in placement.verdicts if v.cluster == "east")
    assert (verdict.accepted, verdict.rule) == (False, rule)
    assert verdict.why


@pytest.mark.parametrize(
    ("clusters", "requirement", "reason"),
    [
        ((), {}, "no_cluster_registered"),
        ((EAST,), {"policy": PlacementPolicy(regions=("eu",))}, "no_cluster_allowed"),
        ((EAST,), {"allowed_regions": ("eu",)}, "no_cluster_allowed"),
        ((cluster("east", scheduling="drained"),), {}, "no_cluster_allowed"),
        ((cluster("east", alive=False),), {}, "no_cluster_alive"),
        ((cluster("east", suspected=True),), {"avoid": ("east",)}, "no_cluster_alive"),
        ((OFFERING,), {"images": ("elsewhere/x",)}, "no_cluster_offers"),
        (
            (OFFERING, cluster("west", alive=False)),
            {"secrets": ("b",)},
            "no_cluster_offers",
        ),
        ((OFFERING, cluster("west", ill="down")), {"secrets": ("b",)}, "no_cluster_well"),
        ((cluster("east", ill="down"),), {}, "no_cluster_well"),
        ((EAST,), {"largest": Resources(gpu=1)}, "no_capacity"),
        ((cluster("east", most=1, held=1), cluster("west", alive=False)), {}, "no_capacity"),
    ],
)
def test_nowhere_says_what_would_help(
    clusters: tuple[Cluster, ...], requirement: dict, reason: str
) -> None:
    placement = place(Requirement("p/d/x", **requirement), among(*clusters))
    assert (placement.cluster, placement.reason) == ("", reason)
    assert len(placement.verdicts) == len(clusters)


def test_a_refusal_names_what_is_missing() -> None:
    def why(**needs: object) -> str:
        return place(Requirement("p/d/x", **needs), among(OFFERING)).verdicts[0].why  # type: ignore[arg-type]

    assert why(secrets=("b", "a", "c")) == "it does not have the secrets b, c"
    assert "elsewhere/x" in why(images=("elsewhere/x",))
    ill = place(wish(), among(cluster("east", ill="timed out"))).verdicts[0].why
    assert ill == "it takes no new work: timed out"


def test_what_a_cluster_offers_survives_etcd() -> None:
    capacity = OFFERING.capacity
    assert capacity is not None
    assert capacity_from(encode(capacity)) == capacity
    assert capacity_from(encode(replace(capacity, offer=None, ill="down"))).ill == "down"


def test_a_cluster_that_runs_whatever_it_is_given_refuses_no_image() -> None:
    placement = place(Requirement("p/d/x", images=("any",), secrets=("any",)), among(EAST))
    assert placement.cluster == "east"


def test_the_order_of_regions_dominates_labels_and_cores() -> None:
    clusters = among(
        cluster("a", region="eu-west", free=1, cpu=64),
        cluster("b", region="us-east", free=64, cpu=64, labels={"disk": "fast"}),
    )
    ordered = wish(regions=("eu-*", "us-*"), prefer=("disk=fast",))
    assert place(ordered, clusters).cluster == "a"
    assert place(wish(prefer=("disk=fast",)), clusters).cluster == "b"


def test_an_earlier_label_dominates_all_later_ones() -> None:
    clusters = among(
        cluster("a", free=0, labels={"one": "1"}),
        cluster("b", labels={"two": "2", "three": "3"}),
    )
    assert place(wish(prefer=("one=1", "two=2", "three=3")), clusters).cluster == "a"


def test_assignments_not_yet_claimed_count_against_free_cores() -> None:
    clusters = among(cluster("a", free=4, assigned=3), cluster("b", free=2))
    assert place(wish(), clusters).cluster == "b"
    claimed = among(cluster("a", free=4, assigned=3, held=3), cluster("b", free=2))
    assert place(wish(), claimed).cluster == "a"


def test_a_batch_counts_itself() -> None:
    clusters = among(cluster("a", most=2), cluster("b", most=2))
    placements = place_all([wish(f"p/d/{n}") for n in range(5)], clusters)
    assert sorted(p.cluster for p in placements) == ["", "a", "a", "b", "b"]
    assert placements[-1].reason == "no_capacity"


def test_equal_clusters_share() -> None:
    clusters = among(*(cluster(name) for name in "abc"))
    chosen = [place(wish(f"p/d/{n}"), clusters).cluster for n in range(90)]
    assert min(chosen.count(name) for name in "abc") > 10


some_clusters = st.lists(
    st.builds(
        cluster,
        st.sampled_from(["a", "b", "c", "d", "e"]),
        region=st.sampled_from(["us-east", "us-west", "eu-west"]),
        free=st.floats(-8, 64),
        gpu=st.integers(0, 2),
        most=st.integers(0, 3),
        held=st.integers(0, 3),
        assigned=st.integers(0, 3),
        scheduling=st.sampled_from(["active", "cordoned", "drained"]),
        alive=st.booleans(),
        suspected=st.booleans(),
        labels=st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"])),
        ill=st.sampled_from(["", "", "down"]),
        offer=st.none()
        | st.builds(
            Offer,
            images=st.lists(st.sampled_from(["i/*", "j/*"]), max_size=2).map(tuple),
            refused_images=st.lists(st.sampled_from(["i/1"]), max_size=1).map(tuple),
            secrets=st.lists(st.sampled_from(["s", "t"]), max_size=2).map(tuple),
        ),
    ),
    unique_by=lambda one: one.name,
)
some_wishes = st.builds(
    Requirement,
    st.from_regex(r"p/d/[a-z]{1,4}", fullmatch=True),
    policy=st.builds(
        PlacementPolicy,
        regions=st.lists(st.sampled_from(["us-*", "eu-*", "us-west"]), max_size=2).map(tuple),
        clusters=st.lists(st.sampled_from(["a", "[bc]", "*"]), max_size=2).map(tuple),
        prefer=st.lists(st.sampled_from(["x=1", "y=2"]), max_size=2).map(tuple),
    ),
    largest=st.builds(Resources, cpu=st.floats(0, 6), gpu=st.integers(0, 1)),
    avoid=st.lists(st.sampled_from(["a", "b"]), max_size=1).map(tuple),
    allowed_regions=st.lists(st.sampled_from(["us-east", "eu-west"]), max_size=1).map(tuple),
    images=st.lists(st.sampled_from(["i/1", "i/2", "j/1"]), max_size=2).map(tuple),
    secrets=st.lists(st.sampled_from(["s", "t"]), max_size=2).map(tuple),
)


@given(some_clusters, some_wishes)
def test_every_cluster_has_a_verdict_and_the_best_accepted_one_wins(
    clusters: list[Cluster], requirement: Requirement
) -> None:
    known = among(*clusters)
    placement = place(requirement, known)
    assert {v.cluster for v in placement.verdicts} == set(known)
    accepted = {v.cluster: v.score for v in placement.verdicts if v.accepted}
    assert all(v.rule and v.why for v in placement.verdicts if not v.accepted)
    assert bool(placement.cluster) == bool(accepted) != bool(placement.reason)
    if placement.cluster:
        chosen = known[placement.cluster]
        assert accepted[placement.cluster] == max(accepted.values())
        assert chosen.alive
        assert chosen.registration.scheduling == "active"
        assert placement.cluster not in requirement.avoid
        allowed = requirement.allowed_regions
        assert not allowed or chosen.registration.region in allowed
        assert chosen.capacity is not None
        assert not chosen.capacity.ill
        if (offer := chosen.capacity.offer) is not None:
            assert set(requirement.secrets) <= set(offer.secrets)
            assert not set(requirement.images) & set(offer.refused_images)
            globs = offer.images or ("*",)
            assert all(rank(globs, image) is not None for image in requirement.images)
    assert place(requirement, dict(reversed(known.items()))) == placement


@given(some_clusters, st.lists(some_wishes, max_size=8, unique_by=lambda one: one.execution))
def test_no_batch_overfills_a_cluster(
    clusters: list[Cluster], requirements: list[Requirement]
) -> None:
    known = among(*clusters)
    chosen = [p.cluster for p in place_all(requirements, known)]
    for name, one in known.items():
        most = one.capacity.max_executions if one.capacity else 0
        if most and chosen.count(name):
            assert len(one.assigned) + chosen.count(name) <= most

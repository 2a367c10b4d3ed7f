"""How a cluster's compute and offer are shown, from the wire to the lines a person reads."""

from typing import Any

import pytest
from whimbrel.cli import cluster
from whimbrel.client_views import ClusterView, OfferView
from whimbrel.rpc import cluster_view
from whimbrel.wire.v1 import cluster_pb2, placement_pb2


def from_wire(**capacity: Any) -> ClusterView:
    live = placement_pb2.LiveCluster(alive=True, capacity=placement_pb2.Capacity(**capacity))
    registration = placement_pb2.Registration(name="alpha", region="alpha")
    return cluster_view(cluster_pb2.Cluster(registration=registration, live=live))


def test_an_ill_cluster_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    view = from_wire(compute_ill=True, compute_why="no answer from https://10.0.0.1")
    assert view.as_json()["ill"] == "no answer from https://10.0.0.1"
    cluster._table((view,))
    shown = capsys.readouterr()
    assert "ILL" in shown.out
    assert "alpha: its compute is ill" in shown.err
    assert "no answer from https://10.0.0.1" in shown.err


def test_ill_without_a_reason_is_still_ill() -> None:
    assert from_wire(compute_ill=True).ill


def test_a_well_cluster_shows_what_it_offers(capsys: pytest.CaptureFixture[str]) -> None:
    offer = placement_pb2.Offer(images=["a/*"], refused_images=["a/b"], secrets=["token"])
    view = from_wire(offer=offer, queued_tasks=7)
    assert view.offer == OfferView(("a/*",), ("a/b",), ("token",))
    cluster._table((view,))
    cluster._details(view)
    shown = capsys.readouterr()
    assert all(word in shown.out for word in ("OK", "a/*", "a/b", "token", "7"))
    assert shown.err == ""


def test_a_cluster_of_processes_offers_anything() -> None:
    view = from_wire()
    assert (view.ill, view.offer, view.as_json()["offer"]) == ("", None, None)

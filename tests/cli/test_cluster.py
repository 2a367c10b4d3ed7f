"""How a cluster's compute and offer are shown, from the wire to the lines a person reads."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from whimbrel.cli import cluster
from whimbrel.client_views import ClusterView, OfferView
from whimbrel.rpc import cluster_view
from whimbrel.wire.v1 import cluster_pb2, cluster_pb2_grpc, placement_pb2


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


class Registering(cluster_pb2_grpc.ClustersServicer):
    def Register(self, request: Any, context: Any) -> Any:
        return cluster_pb2.Cluster(registration=request.registration)


@pytest.mark.parametrize(("given", "meant"), [("us-east", "us-east"), ("", "alpha")])
def test_a_cluster_is_registered_in_a_region(
    capsys: pytest.CaptureFixture[str], given: str, meant: str
) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    cluster_pb2_grpc.add_ClustersServicer_to_server(Registering(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        cluster.register("alpha", region=given, endpoint=f"127.0.0.1:{port}")
    finally:
        server.stop(0).wait()
    assert f"alpha is registered in {meant} and active" in capsys.readouterr().err

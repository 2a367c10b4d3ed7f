"""What the agent's settings become: a launcher of the chosen kind, with everything it was told."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from whimbrel.errors import InvalidInput

from data_plane_agent import compute
from data_plane_agent.guard import Guard
from data_plane_agent.processes.launcher import ProcessLauncher
from data_plane_agent.settings import Settings

pytestmark = pytest.mark.anyio

KUBECONFIG = """
clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
users: [{name: a, user: {token: t}}]
current-context: a
"""
TOLD: dict[str, Any] = {
    "namespace": "teams", "image": "task:1", "images": ("a/*",), "secrets": {"token": "team/token"},
    "gpu_resource": "amd.com/gpu", "run_as": 1234, "default_cpu": 0.5, "default_mem_bytes": 7,
    "unschedulable_seconds": 1.5, "image_seconds": 2.5, "linger_seconds": 3.5, "grace_seconds": 4.5,
    "start_seconds": 7.5, "orphan_seconds": 5.5, "lost_seconds": 6.5, "creates_at_once": 3,
}  # fmt: skip


def settings(tmp_path: Path, **told: Any) -> Settings:
    common = {"cluster": "a", "region": "a-region", "data_dir": tmp_path}
    return Settings.model_validate(common | told)


def in_pods(tmp_path: Path, **told: Any) -> Settings:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    pods = {
        "compute": "kubernetes", "image": "task:1", "store": "s3://a-store",
        "store_key": "k", "store_secret": "s",
    }  # fmt: skip
    return settings(tmp_path, kubeconfig=str(tmp_path / "kubeconfig"), **(pods | told))


async def fetch_bundle(digest: str) -> Path:
    raise AssertionError(digest)


def test_everything_the_agent_is_told_of_pods_reaches_the_launcher(tmp_path: Path) -> None:
    about = asdict(compute.pod_settings(in_pods(tmp_path, **TOLD), template={"spec": {}}))
    assert about == TOLD | {"cluster": "a", "region": "a-region", "template": {"spec": {}}}


def test_patience_with_orphans_depends_on_the_kind(tmp_path: Path) -> None:
    assert compute.pod_settings(in_pods(tmp_path), template={}).orphan_seconds == 60


async def test_processes_are_the_default(tmp_path: Path) -> None:
    given = settings(tmp_path, store=(tmp_path / "store").as_uri())
    launcher = await compute.connect(given, fetch_bundle=fetch_bundle)
    assert isinstance(launcher, ProcessLauncher)
    assert launcher.settings.orphan_seconds == 600


async def test_exclusive_tasks_are_renewed_by_the_session(tmp_path: Path) -> None:
    given, guard = settings(tmp_path, store=(tmp_path / "store").as_uri()), Guard()
    launcher = await compute.connect(given, fetch_bundle=fetch_bundle, renewal=guard)
    assert isinstance(launcher, ProcessLauncher)
    assert launcher._renewals._renewal is guard


async def test_a_cluster_is_connected_to_without_being_asked(tmp_path: Path) -> None:
    launcher = await compute.connect(in_pods(tmp_path), fetch_bundle=fetch_bundle)
    assert type(launcher).__name__ == "PodLauncher"
    await launcher.close(kill=False)


async def test_a_template_that_may_not_be_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text("spec: {hostNetwork: true}\n")
    given = in_pods(tmp_path, pod_template=tmp_path / "template.yaml")
    with pytest.raises(InvalidInput, match="hostNetwork"):
        await compute.connect(given, fetch_bundle=fetch_bundle)


async def test_the_stores_of_peers_are_reached_with_their_own_keys(tmp_path: Path) -> None:
    peers = {"s3://b-store": {"endpoint": "http://10.0.0.2:1", "key": "b-key", "secret": "b"}}
    own = {"store_endpoint": "http://10.0.0.1:1", "store_key": "a-key", "store_secret": "a"}
    blobs = compute.store_of(in_pods(tmp_path, peers=peers, **own))
    signed = await blobs.sign("GET", ["s3://a-store/x", "s3://b-store/x"], seconds=60)
    mine, theirs = signed["s3://a-store/x"], signed["s3://b-store/x"]
    assert mine.startswith("http://10.0.0.1:1/a-store/x?")
    assert "a-key" in mine
    assert theirs.startswith("http://10.0.0.2:1/b-store/x?")
    assert "b-key" in theirs

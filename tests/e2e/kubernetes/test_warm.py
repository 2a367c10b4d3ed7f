"""Warm pods in a real cluster: many tasks, few pods; one that dies costs no result."""

from tests.e2e.federation import eventually
from tests.e2e.kubernetes.runs import PATIENCE, Cloud, pods

MOST = 4
"""`warm_pods` of an agent that was not told otherwise."""


def warm_pods(cluster: object) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods(cluster, "whimbrel.dev/warm")]


def test_a_chain_of_tasks_runs_in_few_pods_and_outlives_one_of_them(
    cloud: Cloud, clusters: dict
) -> None:
    alpha = clusters["alpha"]
    first = cloud.launch("warm-chain", "chain", "--region", "alpha", door=False)
    assert first.await_end() == "SUCCEEDED"
    assert first.execution["outputs"] == {"o0": 20}
    used = warm_pods(alpha)
    assert 1 <= len(used) <= MOST
    assert {pod["metadata"]["name"] for pod in pods(alpha)} <= set(used), "a pod for one task"
    for name in used:
        alpha.kubectl("-n", "whimbrel", "delete", "pod", name, "--grace-period=0", "--force")
    second = cloud.launch("warm-again", "chain", "--region", "alpha", door=False)
    assert second.await_end() == "SUCCEEDED"
    assert second.execution["outputs"] == {"o0": 20}
    assert all(node["user_failures"] == 0 for node in second.execution["nodes"])
    eventually("other pods have taken over", lambda: set(warm_pods(alpha)) - set(used),
               deadline=PATIENCE)  # fmt: skip

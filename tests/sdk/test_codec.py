"""What goes over the wire and back is the same value with the same digest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whimbrel import codec, spec
from whimbrel.errors import InvalidInput
from whimbrel.wire.v1 import spec_pb2

names = st.text("abcdefghij-", min_size=1, max_size=6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(0, 1e9, allow_nan=False)
counts = st.integers(0, 2**31 - 1)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
bindings = st.recursive(
    st.builds(spec.Literal, json_values)
    | st.builds(spec.InputRef, names)
    | st.builds(spec.OutputRef, names, names, st.lists(texts, max_size=2).map(tuple)),
    lambda inner: (
        st.builds(spec.ListBinding, st.lists(inner, max_size=3).map(tuple))
        | st.builds(spec.MapBinding, st.dictionaries(texts, inner, max_size=3))
    ),
    max_leaves=5,
)
required = st.builds(spec.Variable, names, st.dictionaries(texts, json_values, max_size=2))
optional = st.builds(spec.Variable, names, st.just({"type": "string"}), st.just(False), json_values)
variables = st.lists(required | optional, max_size=3).map(tuple)
interfaces = st.builds(spec.Interface, variables, variables)
resources = st.builds(spec.Resources, numbers, counts, counts, counts)
tasks = st.builds(
    spec.TaskSpec,
    name=names,
    entry_point=texts,
    bundle=texts,
    interface=interfaces,
    requests=resources,
    limits=resources,
    retries=counts,
    timeout_seconds=numbers,
    environment=st.dictionaries(texts, texts, max_size=2),
    container_image=texts,
    interruptible=st.booleans(),
    secrets=st.lists(texts, max_size=2).map(tuple),
    cache=st.builds(spec.CacheSpec, st.booleans(), texts, st.booleans(), st.just(("a", "b"))),
    warm=st.booleans(),
)
overrides = st.builds(
    spec.NodeOverrides,
    st.none() | resources,
    st.none() | resources,
    st.none() | counts,
    st.none() | numbers,
)
nodes = st.builds(
    spec.NodeSpec,
    id=names,
    task=names,
    inputs=st.dictionaries(texts, bindings, max_size=3),
    upstream=st.lists(names, max_size=2).map(tuple),
    overrides=overrides,
)
policies = st.builds(
    spec.PlacementPolicy,
    regions=st.lists(texts, max_size=2).map(tuple),
    mode=st.sampled_from(spec.Mode),
    failover=st.booleans(),
    max_wait_seconds=numbers,
)
workflows = st.builds(
    spec.WorkflowSpec,
    name=names,
    interface=interfaces,
    nodes=st.lists(nodes, max_size=3).map(tuple),
    tasks=st.lists(tasks, max_size=2).map(tuple),
    outputs=st.dictionaries(texts, bindings, max_size=2),
    bundle=texts,
    placement=policies,
)


@given(workflows)
def test_a_workflow_keeps_its_digest(workflow: spec.WorkflowSpec) -> None:
    message = codec.workflow_to_wire(workflow)
    parsed = spec_pb2.WorkflowSpec.FromString(message.SerializeToString())
    back = codec.workflow_from_wire(parsed)
    assert spec.digest(back) == spec.digest(workflow)
    assert back == workflow


@given(tasks)
def test_a_task_keeps_its_digest(task: spec.TaskSpec) -> None:
    assert spec.digest(codec.task_from_wire(codec.task_to_wire(task))) == spec.digest(task)


def test_an_artifact_comes_back() -> None:
    artifact = spec.Artifact("file:///x", "ab", 3, "us-east", "directory", ("us-east",))
    assert codec.artifact_from_wire(codec.artifact_to_wire(artifact)) == artifact


def test_a_failure_comes_back() -> None:
    failure = spec.Failure(spec.Owner.USER, "raised", "no", "n0", "Traceback ...")
    assert codec.failure_from_wire(codec.failure_to_wire(failure)) == failure


@pytest.mark.parametrize("want", spec.Want)
def test_an_assignment_comes_back(want: spec.Want) -> None:
    assignment = spec.Assignment("p/d/x", 7, "us-east", want, 2, "00-a-b-01")
    assert codec.assignment_from_wire(codec.assignment_to_wire(assignment)) == assignment


@pytest.mark.parametrize("phase", spec.Phase)
def test_a_phase_comes_back(phase: spec.Phase) -> None:
    assert codec.phase_from_wire(codec.phase_to_wire(phase)) is phase


def test_a_node_of_a_later_kind_is_refused() -> None:
    with pytest.raises(InvalidInput, match="kind that this version does not know"):
        codec.node_from_wire(spec_pb2.NodeSpec(id="n0"))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not one of"):
        codec.policy_from_wire(spec_pb2.PlacementPolicy(mode="eventually"))

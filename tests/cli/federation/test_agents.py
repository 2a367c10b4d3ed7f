"""What `up` accepts about single regions, what it says otherwise, what their agents are given."""

import json
from pathlib import Path

import pytest
from whimbrel.cli.app import main
from whimbrel.cli.federation import agents
from whimbrel.cli.federation.folder import Folder
from whimbrel.cli.federation.parts import Plan, Ports, agent, agent_settings, servers_path
from whimbrel.errors import InvalidInput, Refused

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: alpha, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: admin, context: {cluster: alpha, user: admin}}]
users: [{name: admin, user: {token: t}}]
current-context: admin
"""
SETTINGS = """
image = "registry.example/task@sha256:00"
images = ["registry.example/*"]
store = "s3://alpha-store"
store_endpoint = "http://10.0.0.1:7070"
store_key = "alpha"
store_secret = "the secret"
unschedulable_seconds = 30
[secrets]
token = "team/token"
[peers."s3://beta-store"]
endpoint = "http://10.0.0.2:7070"
"""
PORTS = Ports(1, (2,), 3, 4, 5)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alpha.kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "alpha.toml").write_text(SETTINGS)
    return tmp_path


def plan_of(root: Path, given: dict[str, agents.Agent], *regions: str) -> Plan:
    return Plan(Folder(root / "data"), regions, "test", 1, True, given)


def in_kubernetes() -> dict[str, agents.Agent]:
    return dict(agents.from_options(["alpha=alpha.kubeconfig"], ["alpha=alpha.toml"]))


def test_a_kubeconfig_and_settings_become_the_agents_variables(files: Path) -> None:
    plan = plan_of(files, in_kubernetes(), "alpha", "us-east")
    environment = agent(plan, PORTS, "alpha", ["127.0.0.1:9"]).environment
    assert environment["WHIMBREL_AGENT_COMPUTE"] == "kubernetes"
    assert environment["WHIMBREL_AGENT_KUBECONFIG"] == str(files / "alpha.kubeconfig")
    assert environment["WHIMBREL_AGENT_STORE"] == "s3://alpha-store"
    assert environment["WHIMBREL_AGENT_ROUTER"] == "127.0.0.1:9"
    assert environment["WHIMBREL_AGENT_KILL_WORKERS_AT_STOP"] == "true"
    assert json.loads(environment["WHIMBREL_AGENT_IMAGES"]) == ["registry.example/*"]
    assert json.loads(environment["WHIMBREL_AGENT_SECRETS"]) == {"token": "team/token"}
    assert json.loads(environment["WHIMBREL_AGENT_PEERS"])["s3://beta-store"]["endpoint"]
    assert not (files / "data" / "alpha" / "store").exists()
    others = agent(plan, PORTS, "us-east", []).environment
    assert others["WHIMBREL_AGENT_STORE"] == (files / "data" / "us-east" / "store").as_uri()
    assert "WHIMBREL_AGENT_COMPUTE" not in others


def test_the_agent_accepts_what_it_would_be_given(files: Path) -> None:
    plan = plan_of(files, in_kubernetes(), "alpha")
    agents.check({"alpha": agent_settings(plan, "alpha")}, servers=servers_path())


def test_paths_in_a_file_are_meant_from_where_it_lies(files: Path) -> None:
    (files / "sub").mkdir()
    (files / "sub" / "a.toml").write_text(
        'compute = "kubernetes"\nkubeconfig = "../alpha.kubeconfig"\npod_template = "/abs.yaml"\n'
    )
    given = agents.from_options([], ["alpha=sub/a.toml"])["alpha"]
    assert given.in_kubernetes
    assert given.kubeconfig is not None
    assert Path(given.kubeconfig).samefile(files / "alpha.kubeconfig")
    assert given.settings["pod_template"] == "/abs.yaml"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kubeconfig", "alpha"], "is not REGION=FILE"),
        (["--kubeconfig", "alpha=absent"], "absent can't be read"),
        (["--kubeconfig", "Up Here=alpha.kubeconfig"], "name of a region"),
        (["--kubeconfig", "a=alpha.kubeconfig", "--kubeconfig", "a=x"], "names the region a twice"),
        (["--kubeconfig", "alpha=alpha.toml"], "is no kubeconfig"),
        (["--kubeconfig", "alpha=broken"], "can't be read"),
        (["--kubeconfig", "alpha=empty"], "is no kubeconfig"),
        (["--kubeconfig", "alpha=undecided"], "no current context"),
        (["--kubeconfig", "alpha=alpha.kubeconfig"], "alpha: image is missing"),
        (["--agent-settings", "alpha=absent"], "absent can't be read"),
        (["--agent-settings", "alpha=alpha.kubeconfig"], "can't be read"),
        (["--agent-settings", "alpha=alpha.toml"], "only with compute = kubernetes"),
        (["--agent-settings", "alpha=typo.toml"], "slot is no setting of the agent: did you mean"),
        (["--agent-settings", "alpha=none.toml"], "slots: "),
        (["--agent-settings", "alpha=ours.toml"], "cluster is decided by `whimbrel up`"),
        (["--agent-settings", "alpha=nowhere.toml"], "needs a kubeconfig"),
        (
            ["--kubeconfig", "a=alpha.kubeconfig", "--agent-settings", "a=twice.toml"],
            "contradicts --kubeconfig",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    arguments: list[str], says: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "broken").write_text("a: [\n")
    (files / "empty").write_text("a: 1\n")
    (files / "undecided").write_text(KUBECONFIG.replace("current-context: admin", ""))
    for name, text in {
        "typo": "slot = 3",
        "none": "slots = 0",
        "ours": 'cluster = "x"',
        "nowhere": 'compute = "kubernetes"',
        "twice": 'kubeconfig = "x"',
    }.items():
        (files / f"{name}.toml").write_text(text)
    assert main(["up", "--data-dir", "data", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert not (files / "data").exists()


def test_a_secret_is_neither_shown_nor_kept(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = in_kubernetes()
    assert "the secret" not in repr(given)
    agents.remember(files / "agents.json", ["alpha"], given)
    assert "the secret" not in (files / "agents.json").read_text()
    (files / "alpha.toml").write_text(SETTINGS.replace('"alpha"', '""'))
    kubernetes = ["--kubeconfig", "alpha=alpha.kubeconfig", "--agent-settings", "alpha=alpha.toml"]
    assert main(["up", "--data-dir", "data", *kubernetes]) == 2
    said = capsys.readouterr().err
    assert "store_key is missing" in said
    assert "the secret" not in said


def test_a_cluster_that_is_left_out_is_named_with_its_options(files: Path) -> None:
    kept = files / "agents.json"
    assert agents.left_out(kept, ["us-east"], {}) == []
    agents.remember(kept, ["alpha"], in_kubernetes())
    assert agents.left_out(kept, ["alpha"], in_kubernetes()) == []
    (line,) = agents.left_out(kept, ["us-east"], {})
    assert f"--kubeconfig alpha={files / 'alpha.kubeconfig'}" in line
    assert f"--agent-settings alpha={files / 'alpha.toml'}" in line


def test_a_cluster_does_not_come_back_as_processes(files: Path) -> None:
    agents.remember(files / "agents.json", ["alpha"], in_kubernetes())
    agents.remember(files / "agents.json", ["us-east"], {})  # left out for once
    with pytest.raises(Refused, match="was a Kubernetes cluster") as caught:
        agents.left_out(files / "agents.json", ["alpha"], {})
    assert "--kubeconfig alpha=" in caught.value.remedy


def test_an_unknown_region_of_processes_may_have_settings(files: Path) -> None:
    (files / "small.toml").write_text("slots = 2\n")
    given = agents.from_options([], ["us-east=small.toml"])
    plan = plan_of(files, dict(given), "us-east")
    agents.check({"us-east": agent_settings(plan, "us-east")}, servers=servers_path())
    assert agent(plan, PORTS, "us-east", []).environment["WHIMBREL_AGENT_SLOTS"] == "2"
    assert plan.own_store("us-east") is not None


def test_what_an_agent_misses_is_named() -> None:
    with pytest.raises(InvalidInput, match="cluster: Field required"):
        agents.check({"alpha": {"slots": "1"}}, servers=servers_path())

"""Settings that don't go together are refused in one message that names each of them."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from data_plane_agent.settings import OF_PODS, OF_PROCESSES, Settings, problems
from data_plane_agent.settings_check import mistakes

COMMON = {"cluster": "a", "region": "a", "data_dir": "/tmp/a"}
PODS = {
    **COMMON, "compute": "kubernetes", "image": "task:1", "store": "s3://bucket",
    "store_key": "k", "store_secret": "s",
}  # fmt: skip
PROCESSES = {**COMMON, "store": "file:///tmp/store"}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WHIMBREL_AGENT_{name.upper()}", raising=False)


def test_both_kinds_are_accepted() -> None:
    assert mistakes(PODS) == []
    assert mistakes(PROCESSES) == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (PODS | {"image": ""}, "image is missing"),
        (PODS | {"store": "file:///tmp/x"}, "must be s3://BUCKET"),
        (PODS | {"store_key": ""}, "store_key is missing"),
        (PODS | {"store_key": "", "store_secret": ""}, "store_key is missing"),
        (PODS | {"store_secret": ""}, "store_key and store_secret"),
        (PODS | {"store_endpoint": "10.0.0.1:7070"}, "no http:// or https:// URL"),
        (PODS | {"kubeconfig": "/absent"}, "kubeconfig /absent"),
        (PODS | {"pod_template": "/absent"}, "pod_template /absent"),
        (PODS | {"secrets": '{"token": "no-key"}'}, 'secrets.token: "no-key"'),
        (PODS | {"peers": '{"beta": {}}'}, "peers: beta"),
        (PODS | {"peers": '{"s3://b": {"secrt": "x"}}'}, "peers.s3://b.secrt"),
        (PODS | {"images": "no json"}, "images"),
        (PODS | {"url_hours": "200"}, "url_hours"),
        (PODS | {"run_as": "0"}, "run_as"),
        (PODS | {"door": "8475"}, "door 8475 is not HOST:PORT"),
        (PROCESSES | {"door": ":8475"}, "door: only with compute = kubernetes"),
        (PODS | {"slots": "4"}, "slots: only with compute = processes"),
        (PROCESSES | {"image": "x"}, "image: only with compute = kubernetes"),
        (PROCESSES | {"compute": "threads"}, "compute"),
        (PROCESSES | {"sluts": "4"}, "did you mean slots?"),
        (COMMON, "store: Field required"),
    ],
)
def test_each_mistake_is_named(given: dict[str, str], says: str) -> None:
    assert says in "\n".join(mistakes(given))


def test_several_mistakes_are_one_message() -> None:
    (line,) = mistakes({**PODS, "image": "", "store": "file:///x", "cpu": "1"})
    assert all(word in line for word in ("image", "store", "cpu"))


def test_no_message_shows_a_secret() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(
            {**PODS, "store_secret": "hush", "peers": {"s3://b": {"x": "hush"}}}
        )
    assert "hush" not in "\n".join(problems(caught.value))
    assert "hush" not in repr(
        Settings.model_validate({**PODS, "store_key": "k", "store_secret": "hush"})
    )


def test_every_setting_of_one_kind_exists_and_says_what_it_is() -> None:
    assert set(Settings.model_fields) >= OF_PODS | OF_PROCESSES
    assert all(field.description for field in Settings.model_fields.values())


def test_an_agent_of_processes_never_loads_the_kubernetes_client() -> None:
    code = "import sys, data_plane_agent.__main__; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

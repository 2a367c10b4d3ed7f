"""Flags over environment over ./whimbrel.toml over the user's file over a federation started
here."""

from pathlib import Path

import pytest
from whimbrel.cli.settings import load
from whimbrel.errors import InvalidInput


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    (tmp_path / ".whimbrel").mkdir()
    (tmp_path / ".whimbrel" / "sandbox.json").write_text('{"endpoint": "sandbox:1"}')
    (tmp_path / "home" / ".config" / "whimbrel").mkdir(parents=True)
    (tmp_path / "home" / ".config" / "whimbrel" / "config.toml").write_text('project = "mine"')
    return tmp_path


def test_each_layer_yields_to_the_one_above(layers: Path) -> None:
    def endpoint(flag: str | None = None, **environment: str) -> str:
        chosen = load(
            {"endpoint": flag}, environment=environment, folder=layers, home=layers / "home"
        )
        return chosen.endpoint

    assert endpoint() == "sandbox:1"
    (layers / "whimbrel.toml").write_text('endpoint = "file:1"')
    assert endpoint() == "file:1"
    assert endpoint(WHIMBREL_ENDPOINT="environment:1") == "environment:1"
    assert endpoint("flag:1", WHIMBREL_ENDPOINT="environment:1") == "flag:1"


def test_every_setting_says_where_it_came_from(layers: Path) -> None:
    chosen = load({}, environment={}, folder=layers, home=layers / "home")
    assert (chosen.project, chosen.domain) == ("mine", "development")
    assert chosen.source["project"].endswith("config.toml")
    assert chosen.source["domain"] == "default"


@pytest.mark.parametrize("text", ["nonsense", 'endpont = "x:1"', "project = 3"])
def test_a_file_with_mistakes_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "whimbrel.toml").write_text(text)
    with pytest.raises(InvalidInput, match=r"whimbrel\.toml"):
        load({}, environment={}, folder=tmp_path, home=tmp_path)

"""Where pods dial, and what of it the agent's settings say."""

from pathlib import Path

import pytest
from whimbrel.errors import InvalidInput

from data_plane_agent.compute import warm_settings
from data_plane_agent.settings import Settings
from data_plane_agent.warm.settings import own_address


def settings(tmp_path: Path, **told: object) -> Settings:
    return Settings.model_validate(
        {
            "cluster": "a", "region": "a", "data_dir": tmp_path, "compute": "kubernetes",
            "image": "task:1", "store": "s3://bucket", "store_key": "key",
            "store_secret": "secret", **told,
        }
    )  # fmt: skip


def test_pods_dial_the_address_that_leads_to_the_api_server() -> None:
    assert own_address("https://127.0.0.1:6443") == "127.0.0.1"
    with pytest.raises(InvalidInput, match="door-address"):
        own_address("https://no-such-host.invalid")


def test_they_are_told_what_the_agents_settings_say(tmp_path: Path) -> None:
    given = settings(tmp_path, door="[::]:8475", warm_pods=2, grace_seconds=7.0)
    made = warm_settings(given, server="https://127.0.0.1:6443")
    assert (made.host, made.port, made.address) == ("::", 8475, "127.0.0.1")
    assert (made.most, made.idle_seconds, made.grace_seconds) == (2, 300.0, 7.0)
    named = settings(tmp_path, door="0.0.0.0:8475", door_address="agent.whimbrel")
    assert warm_settings(named, server="https://x:1").address == "agent.whimbrel"


def test_without_a_door_there_are_none(tmp_path: Path) -> None:
    assert settings(tmp_path).door == ""

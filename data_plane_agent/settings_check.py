"""Whether agents would accept what they are about to be given: `whimbrel up` asks before it starts
anything.

Run as `python -m data_plane_agent.settings_check`; reads {region: {setting: text}} as JSON, texts
as they would stand in variables; prints a line a mistake and ends with 2 when there is one.
"""

import difflib
import json
import os
import sys
from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_settings import SettingsError

from data_plane_agent.settings import PREFIX, Settings, problems


def mistakes(given: Mapping[str, str]) -> list[str]:
    known = list(Settings.model_fields)
    unknown = [name for name in given if name not in Settings.model_fields]
    if unknown:
        return [_unknown(name, known) for name in unknown]
    before = dict(os.environ)
    os.environ.update({PREFIX + name.upper(): text for name, text in given.items()})
    try:
        Settings()  # pyright: ignore[reportCallIssue]  # its values come from the environment
    except ValidationError as error:
        return problems(error)
    except SettingsError as error:  # of a list or a table that is no JSON
        return [str(error)]
    finally:
        os.environ.clear()
        os.environ.update(before)
    return []


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"settings are {', '.join(sorted(known))}"
    return f"{name} is no setting of the agent: {hint}"


def main() -> int:
    asked: dict[str, dict[str, str]] = json.load(sys.stdin)
    lines = [f"{region}: {line}" for region, given in asked.items() for line in mistakes(given)]
    print("\n".join(lines))  # noqa: T201
    return 2 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

"""Where the logs of attempts that are over lie, of the newest ones.

Filled by the engine; asked through it by `questions.py`.
"""

from collections import OrderedDict
from collections.abc import Iterable

from data_plane_agent.launcher import AttemptKey, Logs

LOGS_REMEMBERED = 50_000
"""More cost memory; of older ones the ledger is asked."""


class AttemptLogs:
    def __init__(self) -> None:
        self._logs: OrderedDict[AttemptKey, Logs] = OrderedDict()

    def keep(self, logs: Iterable[tuple[AttemptKey, Logs]]) -> None:
        self._logs.update(logs)
        while len(self._logs) > LOGS_REMEMBERED:
            self._logs.popitem(last=False)

    def get(self, key: AttemptKey) -> Logs | None:
        return self._logs.get(key)

    def of(self, execution: str, node: str) -> list[AttemptKey]:
        return [key for key in self._logs if key.execution == execution and key.node == node]

"""What a peer is measured on: the same four shapes for each, and what comes back (pure)."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Load:
    """How much of each shape; `seconds` is how long executions are started one after another."""

    fan_out: int = 1000
    chain: int = 500
    repeats: int = 3
    latencies: int = 50
    in_flight: int = 50
    seconds: float = 10


@dataclass(slots=True)
class Measured:
    """A sample a repetition. CPU counts server and workers together."""

    name: str
    start_seconds: float = 0
    tasks_per_second: list[float] = field(default_factory=list[float])
    cpu_ms_per_task: list[float] = field(default_factory=list[float])
    node_seconds: list[float] = field(default_factory=list[float])
    first_line_seconds: list[float] = field(default_factory=list[float])
    executions_per_second: list[float] = field(default_factory=list[float])

"""What is explored to the end: small worlds, each with the faults that one story needs.

Read by `__main__.py` and `test_model.py`. `LARGE` takes longer than a CI run may.
"""

from tests.model.setup import Setup

I, E, P = ("idempotent",), ("exclusive",), ("pinned",)

COMPLETE = (
    Setup("launch", started=False, faults={"second": 1, "restart": 1}),
    Setup("launch-exclusive", E, started=False, faults={"second": 1, "slow": 1}),
    Setup("takeover", I, faults={"crash": 1}),
    Setup("takeover-cut", I, faults={"cut": 1}),
    Setup("takeover-exclusive", E, faults={"crash": 1}),
    Setup("takeover-twice-exclusive", E, faults={"cut": 1, "retry": 1}),
    Setup("paused-exclusive", E, faults={"pause": 1, "copy": 1}),
    Setup("cancel", I, faults={"cancel": 1, "cut": 1}),
    Setup("lost-answers", I, faults={"relay": 1, "unanswered": 1, "cut": 1}),
    Setup("torn-outbox", I, faults={"crash": 1, "torn": 1, "relay": 1}),
    Setup("early-batch", I, faults={"early": 1, "cut": 1}),
    Setup("wiped-etcd", E, faults={"wipe": 1}),
    Setup("migration", I, faults={"migrate": 1, "impatient": 1}),
    Setup("migration-exclusive", E, faults={"migrate": 1, "copy": 1}),
    Setup("lost-store", I, faults={"migrate": 1, "lose": 1}, epochs=5),
    Setup("lost-store-takeover", E, faults={"lose": 1, "cut": 1}, epochs=5),
    Setup("twins", I, clusters=(1, 1, 2), faults={"twin": 1}),
    Setup("twins-exclusive", E, clusters=(1, 1, 2), faults={"twin": 1, "migrate": 1}),
    Setup("dead-cluster", E, faults={"dead": 1, "migrate": 1, "full": 1}, epochs=5),
    Setup("pinned", P, faults={"crash": 1, "migrate": 1}),
    Setup("mass-loss", I, clusters=(1, 2, 3), faults={"dead": 2}, sessions=2, epochs=5),
    Setup("drain", I, faults={"drain": 1, "cut": 1}),
    Setup("squeezed", I, faults={"squeezed": 1, "crash": 1}, epochs=5),
    Setup("gate", I, faults={"gate": 1, "copy": 1, "cut": 1}, gated=True),
    Setup("residency", I, clusters=(1, 2, 3), allowed=frozenset({1, 2}), sessions=2,
          faults={"migrate": 1, "cut": 1}),
)  # fmt: skip

LARGE = (
    Setup("two-runs", ("idempotent", "exclusive"), faults={"cut": 1}, epochs=3, sessions=2),
    Setup("takeover-many", I, faults={"crash": 1, "cut": 1}),
    Setup("takeover-many-exclusive", E, faults={"crash": 1, "cut": 1}),
    Setup("migration-torn", E, faults={"migrate": 1, "relay": 1, "crash": 1, "torn": 1}),
    Setup("wiped-paused", E, faults={"wipe": 1, "pause": 1, "copy": 1}),
    Setup("three-clusters", E, clusters=(1, 2, 3), faults={"migrate": 1, "cut": 2}),
)

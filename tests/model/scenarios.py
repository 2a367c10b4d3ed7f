"""What is explored to the end: small worlds, each with the faults that one story needs.

Read by `__main__.py` and `test_model.py`. `LARGE` takes longer than a CI run may.
"""

from tests.model.setup import Setup

IDEM, EXCL, PIN = ("idempotent",), ("exclusive",), ("pinned",)

THREE, TWO = (1, 2, 3), frozenset({1, 2})

COMPLETE = (
    Setup("launch", started=False, faults={"second": 1, "restart": 1}),
    Setup("launch-exclusive", EXCL, started=False, faults={"second": 1, "slow": 1}),
    Setup("takeover", IDEM, faults={"crash": 1}),
    Setup("takeover-cut", IDEM, faults={"cut": 1}),
    Setup("takeover-exclusive", EXCL, faults={"crash": 1}),
    Setup("takeover-twice-exclusive", EXCL, faults={"cut": 1, "retry": 1}),
    Setup("paused-exclusive", EXCL, faults={"pause": 1, "copy": 1}),
    Setup("cancel", IDEM, faults={"cancel": 1, "cut": 1}),
    Setup("lost-answers", IDEM, faults={"relay": 1, "unanswered": 1, "cut": 1}),
    Setup("torn-outbox", IDEM, faults={"crash": 1, "torn": 1, "relay": 1}),
    Setup("early-batch", IDEM, faults={"early": 1, "cut": 1}),
    Setup("wiped-etcd", EXCL, faults={"wipe": 1}),
    Setup("migration", IDEM, faults={"migrate": 1, "impatient": 1}),
    Setup("migration-exclusive", EXCL, faults={"migrate": 1, "copy": 1}),
    Setup("migration-forgotten", IDEM, faults={"migrate": 1, "forgotten": 1}),
    Setup("migration-refused", EXCL, faults={"migrate": 1, "full": 1}),
    Setup("migration-drain", IDEM, faults={"migrate": 1, "drain": 1}),
    Setup("restored", IDEM, faults={"cut": 1, "restore": 1}, sessions=2),
    Setup("lost-store", IDEM, faults={"migrate": 1, "lose": 1}, epochs=5),
    Setup("lost-store-takeover", EXCL, faults={"lose": 1, "cut": 1}, epochs=5),
    Setup("twins", IDEM, clusters=(1, 1, 2), faults={"twin": 1}),
    Setup("twins-exclusive", EXCL, clusters=(1, 1, 2), faults={"twin": 1, "migrate": 1}),
    Setup("flapping-twins", IDEM, clusters=(1, 1), faults={"twin": 2}, sessions=4),
    Setup("forgotten-story", IDEM, faults={"cut": 1, "forgotten": 1}),
    Setup("dead-cluster", EXCL, faults={"dead": 1, "migrate": 1, "full": 1}, epochs=5),
    Setup("pinned", PIN, faults={"crash": 1, "migrate": 1}),
    Setup("mass-loss", IDEM, clusters=THREE, faults={"dead": 2}, sessions=2, epochs=5),
    Setup("drain", IDEM, faults={"drain": 1}),
    Setup("squeezed", IDEM, faults={"squeezed": 1, "crash": 1}, epochs=3, sessions=2),
    Setup("gate", IDEM, faults={"gate": 1, "copy": 1, "cut": 1}, gated=True),
    Setup("residency", IDEM, clusters=THREE, allowed=TWO, sessions=2, faults={"cut": 1}),
    Setup("residency-migrate", IDEM, clusters=THREE, allowed=TWO, faults={"migrate": 1}),
)  # fmt: skip

LARGE = (
    Setup("two-runs", ("idempotent", "exclusive"), faults={"cut": 1}, epochs=3, sessions=2),
    Setup("takeover-many", IDEM, faults={"crash": 1, "cut": 1}),
    Setup("takeover-many-exclusive", EXCL, faults={"crash": 1, "cut": 1}),
    Setup("migration-torn", EXCL, faults={"migrate": 1, "relay": 1, "crash": 1, "torn": 1}),
    Setup("wiped-paused", EXCL, faults={"wipe": 1, "pause": 1, "copy": 1}),
    Setup("migration-cut", IDEM, faults={"migrate": 1, "cut": 1}),
    Setup("migration-refused-crash", EXCL, faults={"migrate": 1, "full": 1, "crash": 1}),
    Setup("three-clusters", EXCL, clusters=THREE, faults={"migrate": 1, "cut": 2}),
    Setup("drain-cut", IDEM, faults={"drain": 1, "cut": 1}),
    Setup("squeezed-crash", IDEM, faults={"squeezed": 1, "crash": 1}, epochs=5),
    Setup("residency-cut", IDEM, clusters=THREE, allowed=TWO, sessions=2,
          faults={"migrate": 1, "cut": 1}),
)  # fmt: skip

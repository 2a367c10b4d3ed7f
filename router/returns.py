"""How much new work a cluster gets after a loss: none in quarantine, then a growing share. Pure.

Called by `failback.py`, which keeps the record in etcd, and by `inventory.py` for every snapshot;
answers the next record, and where a cluster stands at a moment.
"""

from dataclasses import dataclass, replace

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds. From the `flap_losses`-th loss within `flap_window` on, each doubles the quarantine,
    up to `longest`."""

    quarantine: float
    ramp: float
    flap_losses: int = 3
    flap_window: float = 600.0
    longest: float = 600.0


@dataclass(frozen=True, slots=True)
class Return:
    """A cluster that was judged lost, as etcd keeps it. `cluster_epoch` of the session that was
    lost; `losses` Unix times of those that count, the newest last; `back_epoch` of the session it
    returned with at `back_ns`, 0 = still away. `quarantine` and `ramp` in seconds are fixed with
    the loss, so that replicas with other settings say the same."""

    cluster: str
    cluster_epoch: int
    losses: tuple[int, ...]
    quarantine: float
    ramp: float
    back_epoch: int = 0
    back_ns: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """`cluster_epoch` 0: it was lost before this replica's time."""

    cluster: str
    cluster_epoch: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Standing:
    """`share` of the new runs that may prefer this cluster, 0 <= share < 1."""

    share: float
    why: str


def lost(before: Return | None, loss: Loss, terms: Terms) -> Return | None:
    """The record with this loss in it, None when it is there already."""
    if before is not None and before.cluster_epoch == loss.cluster_epoch:
        return None
    oldest = loss.since_ns - round(terms.flap_window * SECOND)
    earlier = () if before is None else before.losses
    losses = (*(one for one in earlier if one > oldest), loss.since_ns)
    return Return(
        loss.cluster, loss.cluster_epoch, losses, quarantine(len(losses), terms), terms.ramp
    )


def quarantine(losses: int, terms: Terms) -> float:
    doublings = max(losses - terms.flap_losses + 1, 0)
    longest = max(terms.longest, terms.quarantine)
    return min(terms.quarantine * 2.0 ** min(doublings, 64), longest)


def returned(
    before: Return | None, session: int, *, loss: Loss | None, now_ns: int, terms: Terms
) -> Return | None:
    """The record once a session with the cluster epoch `session` is there, None when nothing
    changes. A session newer than the lost one may count lower: SQL may come from a backup.

    `loss` is one that this replica judged and has not found noted: etcd was away, or it did not
    know the session. Then the first session of all (cluster epoch 1) returns from nowhere, and what
    another replica noted counts once."""
    if before is not None and not before.back_epoch:
        away = before if before.cluster_epoch != session else None
    elif loss is None or (before is not None and before.back_epoch == session):
        away = None
    else:
        epoch = loss.cluster_epoch or session - 1
        away = lost(before, replace(loss, cluster_epoch=epoch), terms) if epoch else None
    return None if away is None else replace(away, back_epoch=session, back_ns=now_ns)


def remembered_seconds(record: Return, terms: Terms) -> float:
    """How long the record of a cluster that is back must last: it also counts the losses."""
    return max(record.quarantine + record.ramp, terms.flap_window)


def standing(record: Return, *, now_ns: int) -> Standing | None:
    """None once it is a cluster like any other. A clock that was set back counts as "just now":
    the record's lease ends it in any case."""
    since = max(now_ns - record.back_ns, 0) / SECOND if record.back_epoch else 0.0
    times = f"lost {len(record.losses)} times lately, " if len(record.losses) > 1 else ""
    back = f"{times}back since {since:.0f} s after a loss"
    if (left := record.quarantine - since) > 0:
        return Standing(
            0.0, f"{back}, new work after {left:.0f} s more unless nobody else takes it"
        )
    if (ramped := since - record.quarantine) < record.ramp:
        share = ramped / record.ramp
        return Standing(share, f"{back}, {share:.0%} of the new runs go there again")
    return None

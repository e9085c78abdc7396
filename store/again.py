"""Parcels that go up once more, although they were settled: the gateway has lost them, or they were put aside in vain.

A gateway that was restored from a backup says by its acknowledgements what it lacks; what was delivered is kept for
days for that (`store.parcels.DELIVERED_KEPT_S`). And a parcel whose attempts were used up without a single refusal may
have been under way whenever the power went: it is tried again a day later, once a day at most, so that one that really
is poisonous costs one death a day and an innocent one is not lost. All of it is measured in lived time (`store.lived`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from protocol.messages import Ack
from protocol.numbers import PARCEL_ATTEMPTS_MAX, RANGES_IN_ACK_MAX
from store.database import Database

TRIED_AGAIN_S: Final = 86_400
# An acknowledgement may be overtaken by later ones, but not for so long.
OVERTAKEN_S: Final = 600
_QUEUED, _DELIVERED, _QUARANTINED = 1, 2, 3


def give_again(database: Database, ack: Ack, epoch: int, lived_s: int) -> int:
    """Queue delivered parcels that an acknowledgement of their epoch lacks; return how many there are.

    Of other epochs, of which it says nothing, all that is kept goes up again then: what is there already is dropped.
    """

    def queue(where: str, params: dict[str, int]) -> int:
        late = "(closed_s <= :before OR closed_s > :now)"
        fixed = {"state": _DELIVERED, "epoch": epoch.to_bytes(8, "big"), "before": lived_s - OVERTAKEN_S}
        return database.update(
            "parcels",
            f"state = :state AND {where} AND {late}",
            {**fixed, "now": lived_s, **params},
            state=_QUEUED,
            attempts=0,
            closed_s=None,
        )

    mine = "epoch = :epoch AND sequence BETWEEN :first AND :last"
    given = sum(queue(mine, {"first": first, "last": last}) for first, last in _gaps(ack))
    return given + queue("epoch <> :epoch", {}) if given else 0


def try_again(database: Database, lived_s: int) -> int:
    """Queue parcels that were put aside a day ago without a refusal, for one attempt; return how many there are."""
    return database.update(
        "parcels",
        "state = :state AND refusal IS NULL AND closed_s <= :before",
        {"state": _QUARANTINED, "before": lived_s - TRIED_AGAIN_S},
        state=_QUEUED,
        attempts=PARCEL_ATTEMPTS_MAX - 1,
        closed_s=None,
    )


def _gaps(ack: Ack) -> Iterator[tuple[int, int]]:
    """Yield the ranges that are missing below the highest sequence of an acknowledgement."""
    if ack.epoch_unknown or len(ack.ranges) >= RANGES_IN_ACK_MAX:
        return  # a full list leaves out ranges that are there
    after = ack.cumulative + 1
    for first, last in ack.ranges:
        if after < first:
            yield after, first - 1
        after = last + 1

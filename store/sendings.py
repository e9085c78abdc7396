# ruff: noqa: S608 - what is put into SQL here are constants of this module.
"""How often a parcel was tried: counted before it is sent, and put aside when it has used its attempts up.

An attempt is counted once however many sendings of a parcel are under way (over several links, or repeated before the
first was given up), and taken back when none is any more: so only refusals and deaths of the daemon stay counted, a
poisonous parcel stops itself, and a lossy link stops nothing. Everything runs inside the caller's transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from protocol.numbers import PARCEL_ATTEMPTS_MAX, Refusal
from store import incidents
from store.database import Database, Sql
from store.lived import Lived

# These do not get better by trying again.
_FINAL_REFUSALS: Final = frozenset({Refusal.MALFORMED, Refusal.BAD_SIGNATURE, Refusal.TOO_LARGE})
_QUARANTINED: Final = 3
_QUEUED: Final = "epoch = :epoch AND sequence = :sequence AND state = 1"


class Sendings:
    """The attempts of the parcels in an open STATE database, in this life of the daemon."""

    def __init__(self, database: Database, lived: Lived) -> None:
        self._database = database
        self._lived = lived
        self._under_way: Counter[tuple[int, int]] = Counter()

    def begin(self, epoch: int, sequences: Iterable[int], now_s: int) -> tuple[int, ...]:
        """Count an attempt BEFORE the sending; return the sequences that may be sent, the others are put aside."""
        allowed = []
        with self._database.atomic():
            for sequence in sequences:
                more = 0 if self._under_way[epoch, sequence] else 1
                where = {**_name(epoch, sequence), "most": PARCEL_ATTEMPTS_MAX - more}
                if self._update(f"{_QUEUED} AND attempts <= :most", where, attempts=Sql(f"attempts + {more}")):
                    allowed.append(sequence)
                    self._under_way[epoch, sequence] += 1
                elif self._put_aside(epoch, sequence, self._lived.now_s()):
                    self._report(epoch, sequence, "attempts", now_s)
        return tuple(allowed)

    def end(self, epoch: int, sequences: Iterable[int]) -> None:
        """Take the attempt back when no sending of a parcel is under way any more; an answer of any kind ends one."""
        with self._database.atomic():
            for sequence in sequences:
                self._under_way[epoch, sequence] -= 1
                if self._under_way[epoch, sequence] <= 0:
                    del self._under_way[epoch, sequence]
                    where = _name(epoch, sequence)
                    self._update(f"{_QUEUED} AND attempts > 0", where, attempts=Sql("attempts - 1"))

    def refuse(self, epoch: int, sequence: int, reason: Refusal, now_s: int) -> int:
        """Count a refusal; return how many parcels it put aside."""
        where = _name(epoch, sequence)
        self._update(_QUEUED, where, attempts=Sql("attempts + 1"))
        attempts = self._database.value(f"SELECT attempts FROM parcels WHERE {_QUEUED}", where)
        if attempts is not None and (reason in _FINAL_REFUSALS or attempts >= PARCEL_ATTEMPTS_MAX):
            return self.quarantine(epoch, sequence, reason, now_s)
        return 0

    def quarantine(self, epoch: int, sequence: int, reason: Refusal, now_s: int) -> int:
        """Put a parcel aside, once; return how many that were."""
        changed = self._put_aside(epoch, sequence, self._lived.now_s(), refusal=int(reason))
        if changed:
            self._report(epoch, sequence, reason.name.lower(), now_s)
        return changed

    def _put_aside(self, epoch: int, sequence: int, lived_s: int, **changes: Any) -> int:
        return self._update(_QUEUED, _name(epoch, sequence), state=_QUARANTINED, closed_s=lived_s, **changes)

    def _report(self, epoch: int, sequence: int, reason: str, now_s: int) -> None:
        details: dict[str, int | bool | str] = {"epoch": f"{epoch:016x}", "sequence": sequence, "reason": reason}
        incidents.record(self._database, "parcel.quarantined", details, now_s)

    def _update(self, where: str, params: dict[str, Any], **changes: Any) -> int:
        return self._database.update("parcels", where, params, **changes)


def _name(epoch: int, sequence: int) -> dict[str, Any]:
    return {"epoch": epoch.to_bytes(8, "big"), "sequence": sequence}

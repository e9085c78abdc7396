"""Alarms: what somebody should look at. A rule raises one for a truck and a subject, and clears it when it is over.

Raising one that is open changes nothing but its words, so a rule may be asked again and again. Raising and clearing go
into the audit log and the change feed; an alarm that is over is kept for its history. The rules are elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import delete, insert, select, update

from store.fleet import audit
from store.fleet.database import FleetPart
from store.fleet.limits import PAGE_MAX
from store.fleet.moneytables import alarms

Severity = Literal["warning", "critical"]
# Those that are over are a history for people, not evidence.
CLEARED_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class AlarmNote:
    """An alarm as a rule words it. `rule` is a dotted name, `subject` what of the truck is meant: a link, a bill.

    `truck` is "" for what concerns no single one; `next_step` is what a person should do.
    """

    rule: str
    truck: str
    subject: str
    severity: Severity
    text: str
    next_step: str


@dataclass(frozen=True, slots=True)
class AlarmRecord:
    """An alarm as it is kept; `cleared_ms` None: it still holds."""

    id: int
    rule: str
    truck: str
    subject: str
    severity: str
    since_ms: int
    text: str
    next_step: str
    acknowledged_ms: int | None
    acknowledged_by: str | None
    cleared_ms: int | None
    mailed_ms: int | None = None


class Alarms(FleetPart):
    """Alarms by their ids, and by rule, truck and subject."""

    async def settle_alarms(
        self,
        prefix: str,
        noted: Sequence[AlarmNote],
        now_ms: int,
        *,
        truck: str,
        subject: str | None = None,
        actor: str = audit.GATEWAY_ACTOR,
    ) -> list[AlarmRecord]:
        """Let the open alarms of a truck whose rules begin with `prefix` be exactly these; return the new ones.

        With a `subject` only those about it are meant.
        """
        wanted = {(each.rule, each.subject): each for each in noted}
        raised: list[AlarmRecord] = []
        async with self._database.write() as transaction:
            # One at a time: two gateways that judge the same truck must not raise everything twice.
            await self._database.lock(transaction, "alarms")
            query = select(alarms).where(alarms.c.truck == truck, alarms.c.cleared_ms.is_(None))
            found = [AlarmRecord(**row) for row in (await transaction.execute(query)).mappings()]
            entries = []
            for each in found:
                if not each.rule.startswith(prefix) or subject not in (None, each.subject):
                    continue
                note = wanted.pop((each.rule, each.subject), None)
                if note is None:
                    await transaction.execute(update(alarms).where(alarms.c.id == each.id).values(cleared_ms=now_ms))
                    entries.append(("alarm.cleared", each.rule, each.subject))
                elif (note.text, note.next_step, note.severity) != (each.text, each.next_step, each.severity):
                    words = {"text": note.text, "next_step": note.next_step, "severity": note.severity}
                    await transaction.execute(update(alarms).where(alarms.c.id == each.id).values(words))
            for note in wanted.values():
                values: dict[str, Any] = {name: getattr(note, name) for name in AlarmNote.__slots__}
                values |= {"since_ms": now_ms}
                result = await transaction.execute(insert(alarms).values(values).returning(alarms.c.id))
                empty = {"acknowledged_ms": None, "acknowledged_by": None, "cleared_ms": None}
                raised.append(AlarmRecord(id=result.scalar_one(), **(values | empty)))
                entries.append(("alarm.raised", note.rule, note.subject))
            if entries:
                kept = select(alarms.c.id).where(alarms.c.cleared_ms.is_not(None)).order_by(alarms.c.id.desc())
                newest = kept.limit(CLEARED_KEPT).subquery()
                await transaction.execute(
                    delete(alarms).where(alarms.c.cleared_ms.is_not(None), alarms.c.id.not_in(select(newest.c.id)))
                )
                transaction.note("alarm", truck=truck or None, subject=entries[-1][1], at_ms=now_ms)
            for action, rule, subject in entries:
                detail = {"rule": rule, "subject": subject}
                await audit.append(self._database, transaction, audit.note(actor, action, truck, now_ms, detail))
        return raised

    async def acknowledge_alarm(self, identity: int, now_ms: int, *, actor: str) -> AlarmRecord | None:
        """Note that a person has seen an alarm; None if there is none of that id. The first one who did stands."""
        async with self._database.write() as transaction:
            query = select(alarms).where(alarms.c.id == identity)
            row = (await transaction.execute(query)).mappings().first()
            if row is None or row["acknowledged_ms"] is not None:
                return None if row is None else AlarmRecord(**row)
            values = {"acknowledged_ms": now_ms, "acknowledged_by": actor}
            await transaction.execute(update(alarms).where(alarms.c.id == identity).values(values))
            transaction.note("alarm", truck=row["truck"] or None, subject=row["rule"], at_ms=now_ms)
            detail = {"rule": row["rule"], "subject": row["subject"], "alarm": identity}
            entry = audit.note(actor, "alarm.acknowledged", row["truck"], now_ms, detail)
            await audit.append(self._database, transaction, entry)
            return AlarmRecord(**(dict(row) | values))

    async def alarms_to_mail(self, limit: int = PAGE_MAX) -> list[AlarmRecord]:
        """Return the alarms that hold, that nobody has acknowledged and that were not mailed yet, oldest first."""
        query = select(alarms).where(
            alarms.c.mailed_ms.is_(None), alarms.c.cleared_ms.is_(None), alarms.c.acknowledged_ms.is_(None)
        )
        async with self._database.read() as connection:
            found = await connection.execute(query.order_by(alarms.c.id).limit(min(limit, PAGE_MAX)))
            return [AlarmRecord(**row) for row in found.mappings()]

    async def alarms_mailed(self, identities: Sequence[int], now_ms: int) -> None:
        """Note that these alarms were mailed."""
        async with self._database.write() as transaction:
            changed = update(alarms).where(alarms.c.id.in_(identities)).values(mailed_ms=now_ms)
            await transaction.execute(changed)

    async def alarms(
        self, truck: str | None = None, *, with_cleared: bool = False, after: int | None = None, limit: int = 100
    ) -> list[AlarmRecord]:
        """Return alarms, newest first; `after` is the id of the last one of the page before."""
        query = select(alarms).order_by(alarms.c.id.desc()).limit(min(limit, PAGE_MAX))
        if truck is not None:
            query = query.where(alarms.c.truck == truck)
        if not with_cleared:
            query = query.where(alarms.c.cleared_ms.is_(None))
        if after is not None:
            query = query.where(alarms.c.id < after)
        async with self._database.read() as connection:
            return [AlarmRecord(**row) for row in (await connection.execute(query)).mappings()]

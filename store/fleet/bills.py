"""Bills of providers that were compared with the ledger: what was billed, what was counted, day by day."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select

from store.fleet import audit
from store.fleet.database import FleetPart
from store.fleet.limits import PAGE_MAX
from store.fleet.moneytables import bills


@dataclass(frozen=True, slots=True)
class BillRecord:
    """One comparison over [since_ms, until_ms), in bytes; `days_json` has it by day."""

    id: int
    truck: str
    link: str
    since_ms: int
    until_ms: int
    billed_bytes: int
    counted_bytes: int
    put_ms: int
    put_by: str
    days_json: str


class Bills(FleetPart):
    """Bills by truck."""

    async def put_bill(self, bill: BillRecord) -> BillRecord:
        """Keep a comparison; its `id` is given here."""
        values = {column.name: getattr(bill, column.name) for column in bills.c if column.name != "id"}
        detail: dict[str, str | int | None] = {
            "link": bill.link,
            "billed_bytes": bill.billed_bytes,
            "counted_bytes": bill.counted_bytes,
        }
        async with self._database.write() as transaction:
            result = await transaction.execute(insert(bills).values(values).returning(bills.c.id))
            identity = result.scalar_one()
            transaction.note("bill", truck=bill.truck, subject=bill.link, at_ms=bill.put_ms)
            entry = audit.note(bill.put_by, "bill.reconciled", bill.truck, bill.put_ms, detail)
            await audit.append(self._database, transaction, entry)
        return BillRecord(id=identity, **values)

    async def bills(self, truck: str | None = None, after: int | None = None, limit: int = 100) -> list[BillRecord]:
        """Return comparisons, newest first; `after` is the id of the last one of the page before."""
        query = select(bills).order_by(bills.c.id.desc()).limit(min(limit, PAGE_MAX))
        if truck is not None:
            query = query.where(bills.c.truck == truck)
        if after is not None:
            query = query.where(bills.c.id < after)
        async with self._database.read() as connection:
            return [BillRecord(**row) for row in (await connection.execute(query)).mappings()]

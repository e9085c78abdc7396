"""The audit log is a chain: what is changed, removed or put in between shows."""

import asyncio

import pytest
from sqlalchemy import text

from store.fleet.fleet import FleetStore


async def test_entries_are_chained_and_listed_newest_first(fleet: FleetStore) -> None:
    first = await fleet.audit("ada", "truck.revoke", "ke-arrow", "{}", 1)
    second = await fleet.audit("bob", "token.put", "laptop", '{"role":"viewer"}', 2)
    assert second.previous == first.hash
    assert await fleet.audit_log() == [second, first]
    assert await fleet.audit_log(after=second.id, limit=1) == [first]
    checked = await fleet.verify_audit()
    assert (checked.rows, checked.head, checked.broken_at) == (2, second.hash, None)


async def test_two_gateways_make_one_chain(fleet: FleetStore, other: FleetStore) -> None:
    stores = (fleet, other)
    await asyncio.gather(*(stores[n % 2].audit("ada", "config.put", str(n), "{}", n) for n in range(20)))
    checked = await fleet.verify_audit()
    assert (checked.rows, checked.broken_at) == (20, None)


@pytest.mark.parametrize(
    ("tampering", "broken_at"),
    [
        ("UPDATE audit_log SET actor = 'eve' WHERE id = 2", 2),
        ("UPDATE audit_log SET previous = hash WHERE id = 3", 3),
        ("DELETE FROM audit_log WHERE id = 2", 3),
        ("UPDATE audit_log SET id = 9 WHERE id = 3", 9),
    ],
)
async def test_tampering_breaks_the_chain_where_it_happened(fleet: FleetStore, tampering: str, broken_at: int) -> None:
    for n in (1, 2, 3):
        await fleet.audit("ada", "config.put", str(n), "{}", n)
    async with fleet._database.write() as transaction:
        await transaction.execute(text(tampering))
    assert (await fleet.verify_audit()).broken_at == broken_at


async def test_an_empty_log_holds(fleet: FleetStore) -> None:
    assert (await fleet.verify_audit()).broken_at is None

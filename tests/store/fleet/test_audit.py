"""The audit log is a chain: what is changed, removed or put in between shows."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from protocol.numbers import DocumentKind
from store.fleet.errors import TokenNameError
from store.fleet.fleet import FleetStore
from store.fleet.records import AuditNote, DocumentRecord


async def test_entries_are_chained_and_listed_newest_first(fleet: FleetStore) -> None:
    first = await fleet.audit(AuditNote("ada", "truck.revoke", "ke-arrow", 1))
    second = await fleet.audit(AuditNote("bob", "token.put", "laptop", 2, '{"role":"viewer"}'))
    assert second.previous == first.hash
    assert await fleet.audit_log() == [second, first]
    assert await fleet.audit_log(after=second.id, limit=1) == [first]
    checked = await fleet.verify_audit()
    assert (checked.rows, checked.head, checked.broken_at) == (2, second.hash, None)


async def test_two_gateways_make_one_chain(fleet: FleetStore, other: FleetStore) -> None:
    stores = (fleet, other)
    await asyncio.gather(*(stores[n % 2].audit(AuditNote("ada", "config.put", str(n), n)) for n in range(20)))
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
        await fleet.audit(AuditNote("ada", "config.put", str(n), n))
    async with fleet._database.write() as transaction:
        await transaction.execute(text(tampering))
    assert (await fleet.verify_audit()).broken_at == broken_at


async def test_an_empty_log_holds(fleet: FleetStore) -> None:
    assert (await fleet.verify_audit()).broken_at is None


async def test_each_change_has_its_entry(fleet: FleetStore, enrol: Callable) -> None:
    await fleet.put_token(b"t" * 32, "laptop", "viewer", 1, put_by="ada")
    await fleet.revoke_token("laptop", 2, revoked_by="bob")
    await enrol()
    await fleet.revoke_truck("ke-arrow", 4, revoked_by="bob")
    await fleet.put_blob(b"b" * 32, 7, "pia", 5)
    await fleet.put_document(DocumentRecord(b"d" * 32, DocumentKind.MANIFEST, 3, "maths", b"...", 6, "pia"))
    log = [(each.actor, each.action, each.subject) for each in reversed(await fleet.audit_log())]
    assert log == [
        ("ada", "token.created", "laptop"),
        ("bob", "token.revoked", "laptop"),
        ("ada", "enrolment.created", "ke-arrow"),
        ("truck/ke-arrow", "truck.enrolled", "ke-arrow"),
        ("bob", "truck.revoked", "ke-arrow"),
        ("pia", "blob.put", (b"b" * 32).hex()),
        ("pia", "manifest.put", "maths"),
    ]
    assert (await fleet.verify_audit()).broken_at is None


async def test_what_changed_nothing_has_no_entry(fleet: FleetStore, enrol: Callable) -> None:
    await fleet.put_token(b"t" * 32, "laptop", "viewer", 1)
    await fleet.put_blob(b"b" * 32, 7, "pia", 5)
    record = DocumentRecord(b"d" * 32, DocumentKind.MANIFEST, 3, "maths", b"...", 6, "pia")
    await fleet.put_document(record)
    before = await fleet.audit_log()
    with pytest.raises(TokenNameError):
        await fleet.put_token(b"u" * 32, "laptop", "admin", 2)
    await fleet.put_blob(b"b" * 32, 7, "eve", 6)
    await fleet.put_document(record)
    assert not await fleet.revoke_token("nobody", 3)
    assert not await fleet.revoke_truck("nobody", 3)
    assert await fleet.audit_log() == before


async def test_a_change_whose_entry_cannot_be_written_does_not_happen(fleet: FleetStore) -> None:
    async with fleet._database.write() as transaction:
        await transaction.execute(text("ALTER TABLE audit_log RENAME TO elsewhere"))
    with pytest.raises(DBAPIError):
        await fleet.put_token(b"t" * 32, "laptop", "admin", 1)
    async with fleet._database.write() as transaction:
        await transaction.execute(text("ALTER TABLE elsewhere RENAME TO audit_log"))
    assert await fleet.tokens() == []

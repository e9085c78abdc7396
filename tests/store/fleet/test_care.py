"""Scrub finds what rotted; a backup is whole, private and without transport secrets."""

import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from protocol.errors import LocalError
from protocol.numbers import DocumentKind
from store.fleet.errors import DatabaseUnsupportedError, EnrolmentError
from store.fleet.evidence import BatchPart, EventPart, IngestItem
from store.fleet.fleet import FleetStore
from store.fleet.records import ContextRecord, DocumentRecord

Make = Callable[..., IngestItem]


@pytest.fixture(autouse=True)
async def _evidence(enrol: Callable, fleet: FleetStore, schema_item: IngestItem, item: Make) -> None:
    await enrol()
    await fleet.ingest([schema_item, item(2), item(3, EventPart("e", 1), epoch=(1 << 64) - 1)])


async def test_what_is_sound_scrubs_sound(fleet: FleetStore) -> None:
    report = await fleet.scrub()
    assert report.sound
    assert (report.parcels, report.documents, report.schemas) == (3, 0, 1)


@pytest.mark.parametrize(
    "column",
    ["truck = 'zm-patel'", "sequence = 99", "kind = 5", "link = 'lte'", "received_ms = -1", "sealed = row_hash"],
)
async def test_a_changed_column_of_a_parcel_is_found(fleet: FleetStore, enrol: Callable, column: str) -> None:
    await enrol("zm-patel")
    await fleet.ingest([])
    async with fleet._database.write() as transaction:
        if column.startswith("truck"):
            await transaction.execute(
                text("INSERT INTO epochs SELECT 'zm-patel', epoch, 1, 0, '', 0, 0, 0 FROM epochs WHERE epoch = 7")
            )
        await transaction.execute(text(f"UPDATE parcels SET {column} WHERE epoch = 7 AND sequence = 2"))
    report = await fleet.scrub()
    assert not report.sound
    assert len(report.damaged) == 1
    assert report.damaged[0].startswith("parcel ")


async def test_changed_documents_and_schemas_are_found(fleet: FleetStore) -> None:
    await fleet.put_document(
        DocumentRecord(b"d" * 32, DocumentKind.CONFIG, 1, "ke-arrow", b"not what it says", 1, "ada")
    )
    async with fleet._database.write() as transaction:
        await transaction.execute(text("UPDATE schemas SET encoded = digest"))
    damaged = (await fleet.scrub()).damaged
    assert [each.split()[0] for each in damaged] == ["document", "schema"]


async def test_the_summary_counts_what_operators_watch(fleet: FleetStore, enrol: Callable, item: Make) -> None:
    await enrol("zm-patel")
    await fleet.revoke_truck("zm-patel", 1)
    await fleet.ingest([item(3, BatchPart(9, None)), item(4, BatchPart(1, item(2).part.schema_digest, 1, 1, 2, 3))])
    await fleet.quarantine("ke-arrow", None, None, b"junk", "malformed", 1)
    summary = await fleet.summary()
    assert (summary.trucks, summary.revoked, summary.parked, summary.timeless) == (2, 1, 1, 1)
    assert (summary.to_roll_up, summary.quarantined) == (1, 1)
    assert summary.newest_change == await fleet.changes.newest()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_backup_opens_with_everything_but_transport_secrets(fleet: FleetStore, tmp_path: Path) -> None:
    secret = b"a master secret of an OSCORE context"
    await fleet.put_context(ContextRecord(b"a", b"p", "ke-arrow", "sat", secret, b"", 0, 1))
    path = tmp_path / "backup.db"
    await fleet.backup(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_bytes()
    assert [each.name for each in tmp_path.glob("*.part*")] == []
    restored = await FleetStore.open(f"sqlite:///{path}")
    assert (await restored.scrub()).parcels == 3
    assert await restored.all_contexts() == []
    assert await restored.truck("ke-arrow") == await fleet.truck("ke-arrow")
    await restored.close()
    assert len(await fleet.all_contexts()) == 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_backup_never_replaces_a_file(fleet: FleetStore, tmp_path: Path) -> None:
    path = tmp_path / "backup.db"
    path.write_text("something dear")
    with pytest.raises(FileExistsError):
        await fleet.backup(path)
    assert path.read_text() == "something dear"


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_on_postgresql_a_backup_says_what_to_use(fleet: FleetStore, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnsupportedError, match="pg_dump"):
        await fleet.backup(tmp_path / "backup.db")


async def test_a_restored_database_has_no_session_code_or_desired_state_and_says_what_happened(
    fleet: FleetStore,
) -> None:
    await fleet.put_context(ContextRecord(b"a", b"p", "ke-arrow", "sat", b"m", b"", 0, 1))
    await fleet.set_desired("ke-arrow", b"d" * 32, b"signed", 1)
    await fleet.create_enrolment("zm-patel", "zambia", b"s" * 32, 9_000, "ada", now_ms=1)
    assert await fleet.settle_restored({"made_ms": 5}, 6) == 1
    assert await fleet.all_contexts() == []
    assert await fleet.desired("ke-arrow") is None
    with pytest.raises(EnrolmentError):
        await fleet.redeem_enrolment(b"s" * 32, "zm-patel", b"k" * 32, b"c", b"d", 7)
    newest = (await fleet.audit_log())[0]
    assert (newest.actor, newest.action, newest.detail_json) == (
        "gateway",
        "gateway.restored",
        '{"made_ms":5,"unconfirmed":0}',
    )
    assert (await fleet.verify_audit()).broken_at is None
    assert await fleet.settle_restored({}, 7) == 0


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_transaction_that_does_nothing_shows_that_the_database_takes_one(fleet: FleetStore) -> None:
    await fleet.begin_and_end()
    await fleet.close()
    with pytest.raises(LocalError, match="closed"):
        await fleet.begin_and_end()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_damaged_page_is_found(fleet: FleetStore, tmp_path: Path) -> None:
    await fleet.close()
    path = tmp_path / "fleet.db"
    data = bytearray(path.read_bytes())
    with sqlite3.connect(path) as reader:
        (root,) = reader.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_batches_truck_first_ms_id'"
        ).fetchone()
        (size,) = reader.execute("PRAGMA page_size").fetchone()
    data[(root - 1) * size : root * size] = bytes(size)
    path.write_bytes(data)
    reopened = await FleetStore.open(f"sqlite:///{path}")
    assert not (await reopened.scrub()).sound
    await reopened.close()

"""Sealing the queue again under a new key: all that waits, under its own number, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import cose
from protocol.messages import Event, Parcel, seal, verify_parcel
from protocol.numbers import ParcelKind, Precedence
from store.database import Database, open_database
from store.parcels import ParcelQueue
from store.resealing import reseal_queue
from store.schema import STATE

OLD, NEW = cose.SigningKey(b"o" * 32), cose.SigningKey(b"n" * 32)
TRUCK, SCHEMA = "ke-arrow", bytes(32)
PAYLOAD = Event("x", 1).encode()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "state.db", schema=STATE, share_bytes=16 << 20)
    yield opened
    opened.close()


def add(queue: ParcelQueue, digest: bytes | None) -> None:
    kind = ParcelKind.EVENT if digest is None else ParcelKind.BATCH
    queue.add(
        kind, Precedence.NORMAL, PAYLOAD, lambda parcel: seal(OLD, parcel, TRUCK, digest), 1, schema_digest=digest
    )


def resealed(parcel: Parcel, digest: bytes | None) -> bytes:
    return seal(NEW, parcel, TRUCK, digest)


def test_all_that_waits_is_signed_by_the_new_key_under_its_own_number(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.resealing._CHUNK", 2)
    queue = ParcelQueue(database, TRUCK)
    for digest in (None, SCHEMA, None, SCHEMA, None):
        add(queue, digest)
    assert reseal_queue(database, resealed) == 5
    rows = database.rows("SELECT sequence, sealed, schema_digest FROM parcels ORDER BY id", {})
    assert [sequence for sequence, _, _ in rows] == [1, 2, 3, 4, 5]
    for _, sealed, digest in rows:
        verify_parcel(sealed, NEW.public, TRUCK, queue.epoch, digest)
    assert reseal_queue(database, resealed) == 5
    assert rows == database.rows("SELECT sequence, sealed, schema_digest FROM parcels ORDER BY id", {})
    assert database.check().damage == ()


def test_what_is_delivered_stays_as_it_was_signed(database: Database) -> None:
    queue = ParcelQueue(database, TRUCK)
    add(queue, None)
    before = database.rows("SELECT sealed FROM parcels", {})
    database.update("parcels", "sequence = :sequence", {"sequence": 1}, state=2)
    assert reseal_queue(database, resealed) == 0
    assert database.rows("SELECT sealed FROM parcels", {}) == before


def test_one_that_is_damaged_does_not_stop_the_others(database: Database) -> None:
    queue = ParcelQueue(database, TRUCK)
    add(queue, None)
    add(queue, None)
    database.update("parcels", "sequence = :sequence", {"sequence": 1}, sealed=b"rotten")
    assert reseal_queue(database, resealed) == 1

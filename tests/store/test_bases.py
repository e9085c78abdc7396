"""Batches that go on from others: they can be read and sealed again as long as they are there, wherever they move."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from protocol import batch
from protocol.cose import SigningKey
from protocol.errors import MalformedError, QueueFullError
from protocol.messages import Ack, Batch, Parcel, batch_meaning, content_digest, seal, unseal, verify_parcel
from protocol.numbers import ParcelKind, Precedence
from protocol.rows import Row, RowModel
from protocol.schema import Channel, Codec, Schema
from store.bases import Key, Runs, of_database, sealed_of
from store.database import Database
from store.folding import Folding
from store.parcels import ParcelQueue, ParcelState
from store.resealing import reseal_queue

TRUCK = "ke-arrow"
KEY, OTHER_KEY = SigningKey(b"k" * 32), SigningKey(b"o" * 32)
SCHEMA = Schema((Channel("bat_v", "V", 100, 2600, 5),), codec=Codec.CARRIED)
START = 1_794_960_000
DAY_S = 86_400


def rows(at: int) -> list[Row]:
    return [(START + 3_600 * at + 60 * n, (2_600 + (7 * n + at) % 11,)) for n in range(30)]


@dataclass
class Bench:
    """A queue with a run of batches: each goes on from the one before, which is delivered by then."""

    database: Database
    learnt: RowModel | None = None
    last: Key | None = None

    def __post_init__(self) -> None:
        self.queue = ParcelQueue(self.database, TRUCK)

    def add(self, at: int, *, now_s: int = 100) -> Key:
        base = self.last
        if base is not None:
            self.deliver(now_s)
        digest = None if base is None else content_digest(sealed_of(self.database, base) or b"")
        body = batch.encode(SCHEMA, rows(at), base=self.learnt)
        self.learnt = batch.decode_on(SCHEMA, body, base=self.learnt)[1]
        made = self.queue.add(
            ParcelKind.BATCH,
            Precedence.NORMAL,
            Batch(1, None, body).encode(),
            lambda parcel: seal(KEY, parcel, TRUCK, batch_meaning(SCHEMA.digest, digest)),
            now_s,
            schema_digest=SCHEMA.digest,
            rows=30,
            base=base,
        )
        assert made.epoch is not None
        self.last = made.epoch, made.sequence
        return self.last

    def deliver(self, now_s: int = 100) -> None:
        last = self.database.value("SELECT max(sequence) FROM parcels")
        self.queue.mark_delivered(Ack(cumulative=last), self.queue.epoch, now_s)

    def held(self) -> list[int]:
        return [
            row[0] for row in self.database.rows("SELECT sequence FROM parcels WHERE length(sealed) > 0 ORDER BY id")
        ]

    def read(self, key: Key) -> list[Row]:
        return Runs(of_database(self.database)).rows(SCHEMA, key, payload(self.database, key))


def payload(database: Database, key: Key) -> Batch:
    return Batch.decode(unseal(sealed_of(database, key) or b"").payload)


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


def test_a_run_is_read_from_the_queue_in_any_order(bench: Bench) -> None:
    keys = [bench.add(at) for at in range(5)]
    assert [payload(bench.database, key).base for key in keys] == [None, 1, 1, 1, 1]
    runs = Runs(of_database(bench.database))
    for at in (4, 0, 3, 3, 1, 4):
        assert runs.rows(SCHEMA, keys[at], payload(bench.database, keys[at])) == rows(at)


def test_what_a_waiting_batch_goes_on_from_is_kept_and_let_go_of_after_it(bench: Bench) -> None:
    for at in range(3):
        bench.add(at)
    bench.queue.prune(kept_s=-DAY_S, kept_max=0)
    assert bench.held() == [1, 2, 3]
    assert bench.read(bench.last or (0, 0)) == rows(2)
    bench.deliver()
    bench.queue.prune()
    assert bench.held() == [1, 2, 3]
    for _ in range(3):
        bench.queue.prune(kept_s=-DAY_S)
    assert bench.held() == []
    assert bench.database.value("SELECT count(*) FROM bases") == 0


def test_a_full_share_of_the_disk_takes_no_base_away(opened) -> None:
    bench = Bench(opened(share_bytes=1 << 20))
    for at in range(3):
        bench.add(at)

    def sealed(parcel: Parcel) -> bytes:
        return seal(KEY, parcel, TRUCK)

    filler = bytes(12_000)
    with suppress(QueueFullError):
        for _ in range(200):
            bench.queue.add(ParcelKind.EVENT, Precedence.BULK, filler, sealed, 100)
    assert len(bench.held()) < 200
    assert bench.held()[:3] == [1, 2, 3]
    assert bench.read(bench.last or (0, 0)) == rows(2)


def test_a_batch_under_a_new_number_names_its_base_by_its_epoch(bench: Bench) -> None:
    for at in range(2):
        old = bench.add(at)
    base = (old[0], old[1] - 1)
    bench.database.sql.execute("UPDATE parcels SET state = ? WHERE sequence = ?", [int(ParcelState.CLASHED), old[1]])
    from store.database import start_epoch

    start_epoch(bench.database, "forked", 200)
    assert bench.queue.renumber([old[1]], old[0], lambda parcel, meaning: seal(KEY, parcel, TRUCK, meaning)) == 1
    new = (bench.queue.epoch, 1)
    moved = payload(bench.database, new)
    assert (moved.base_epoch, moved.base) == base
    assert bench.read(new) == rows(1)
    meaning = batch_meaning(SCHEMA.digest, content_digest(sealed_of(bench.database, base) or b""))
    verify_parcel(sealed_of(bench.database, new) or b"", KEY.public, TRUCK, new[0], meaning)


def test_new_keys_sign_a_batch_with_its_base(bench: Bench) -> None:
    for at in range(2):
        key = bench.add(at)
    assert reseal_queue(bench.database, lambda parcel, meaning: seal(OTHER_KEY, parcel, TRUCK, meaning)) == 1
    base = sealed_of(bench.database, (key[0], 1)) or b""
    meaning = batch_meaning(SCHEMA.digest, content_digest(base))
    verify_parcel(sealed_of(bench.database, key) or b"", OTHER_KEY.public, TRUCK, key[0], meaning)
    assert bench.read(key) == rows(1)


def test_a_batch_whose_base_is_gone_is_malformed_and_stays_detail(bench: Bench) -> None:
    from store.documents import Schemas

    number, _ = Schemas(bench.database).number(SCHEMA.encoded)
    assert number == 0
    for at in range(2):
        key = bench.add(at)
    bench.database.sql.execute("DELETE FROM parcels WHERE sequence = 1")
    with pytest.raises(MalformedError, match="gone"):
        bench.read(key)
    folding = Folding(bench.database, {}.get)
    assert folding.summarise(lambda *_: 0, full_before_s=1_000, before_s=1_000) == 0
    assert bench.held() == [2]


def test_a_run_that_is_too_long_or_goes_in_a_circle_is_malformed(bench: Bench) -> None:
    one = seal(KEY, Parcel(7, 1, Precedence.NORMAL, ParcelKind.BATCH, Batch(1, None, b"\0", 2, 7).encode()), TRUCK)
    two = seal(KEY, Parcel(7, 2, Precedence.NORMAL, ParcelKind.BATCH, Batch(1, None, b"\0", 1, 7).encode()), TRUCK)
    runs = Runs({(7, 1): one, (7, 2): two}.get)
    with pytest.raises(MalformedError, match="too long"):
        runs.rows(SCHEMA, (7, 3), replace_base(Batch(1, None, b"\0"), 1))


def replace_base(each: Batch, base: int) -> Batch:
    return Batch(each.schema, each.boot, each.body, base)


def test_waiting_batches_that_go_on_from_others_are_folded(bench: Bench) -> None:
    from store.documents import Schemas

    database = bench.database
    for filler in range(2):
        Schemas(database).number(replace(SCHEMA, period_s=61 + filler).encoded)
    database.sql.execute("DELETE FROM schemas")
    database.insert("schemas", {"number": 1, "digest": SCHEMA.digest, "schema": SCHEMA.encoded})
    for at in range(3):
        bench.add(at)
    made: list[int] = []
    folding = Folding(database, {}.get)
    folding.summarise(lambda schema, boot, body, count: made.append(count) or 9, full_before_s=1_000, before_s=1_000)
    assert made == [30]

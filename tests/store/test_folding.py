"""Folding: groups of one schema, epoch and boot, oldest first; each batch once; what cannot be told is left."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from protocol import batch
from protocol.cose import SigningKey
from protocol.messages import Batch, Parcel, seal, unseal
from protocol.numbers import ParcelKind, Precedence
from protocol.rows import Row
from protocol.schema import VALUE_MAX, Channel, Schema
from protocol.summary import decode_summary, summarise, summary_schema
from store.database import Database
from store.documents import Schemas
from store.eviction import Dropped
from store.folding import SUMMARY_BYTES_MAX, Folding
from store.parcels import ParcelQueue

KEY = SigningKey(b"k" * 32)
ONE = Schema((Channel("bat_v", "V", 100),))
TWO = Schema((Channel("level", "m", 10),))
HOUR = 1_794_960_000


@dataclass
class Bench:
    database: Database
    queue: ParcelQueue = field(init=False)
    made: list[tuple[Schema, int | None, bytes, int]] = field(default_factory=list)
    buried: list[Dropped] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = ParcelQueue(self.database, "ke-arrow")
        self.schemas = Schemas(self.database)
        self.folding = Folding(self.database, {7: 1_800_000}.get)

    def batch(self, rows: list[Row], *, schema: Schema = ONE, boot: int | None = None, now_s: int = 100) -> int:
        number, _ = self.schemas.number(schema.encoded)
        return self._add(Batch(number, boot, batch.encode(schema, rows)), schema, Precedence.NORMAL, len(rows), now_s)

    def add(self, schema: Schema, boot: int | None, body: bytes, rows: int) -> int:
        self.made.append((schema, boot, body, rows))
        number, _ = self.schemas.number(schema.encoded)
        return self._add(Batch(number, boot, body), schema, Precedence.PRIORITY, rows, 100)

    def _add(self, payload: Batch, schema: Schema, precedence: Precedence, rows: int, now_s: int) -> int:
        def sealed(parcel: Parcel) -> bytes:
            return seal(KEY, parcel, "ke-arrow", schema.digest)

        return self.queue.add(
            ParcelKind.BATCH, precedence, payload.encode(), sealed, now_s, schema_digest=schema.digest, rows=rows
        ).sequence

    def summarise(self) -> int:
        return self.folding.summarise(self.add, full_before_s=1_000, before_s=1_000)

    def fold(self) -> int:
        return self.folding.fold(self.add, self.buried.append)

    def told(self, at: int = -1) -> tuple[int, ...]:
        schema, _, body, _ = self.made[at]
        return tuple(sequence for sequence, _ in decode_summary(schema, body).batches)


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


def rows(count: int = 30, *, start: int = HOUR) -> list[Row]:
    return [(start + 60 * at, (at,)) for at in range(count)]


def test_a_group_is_of_one_schema_and_boot_and_the_oldest_goes_first(bench: Bench) -> None:
    for schema, boot in ((ONE, None), (TWO, None), (ONE, None), (ONE, 7), (ONE, 7)):
        bench.batch(rows(), schema=schema, boot=boot)
    assert [bench.summarise() for _ in range(4)] == [2, 1, 2, 0]
    assert [bench.told(at) for at in range(3)] == [(1, 3), (2,), (4, 5)]
    assert [(each[0].digest, each[1], each[3]) for each in bench.made] == [
        (summary_schema(ONE).digest, None, 60),
        (summary_schema(TWO).digest, None, 30),
        (summary_schema(ONE).digest, 7, 60),
    ]
    assert bench.folding.waiting() == 3


def test_hours_of_a_boot_whose_clock_is_known_are_those_of_the_wall(bench: Bench) -> None:
    bench.batch(rows(60, start=0), boot=7)
    bench.summarise()
    (_, pieces) = decode_summary(summary_schema(ONE), bench.made[0][2]).batches[0]
    assert pieces == summarise(ONE, rows(60, start=0), offset_ticks=1_800)
    assert [piece.rows for piece in pieces] == [30, 30]


def test_a_summary_fits_its_datagram_and_waits_to_fill_it(bench: Bench) -> None:
    chance = random.Random(5)
    noisy = [(HOUR + 60 * at, (chance.randint(-(1 << 40), 1 << 40),)) for at in range(200)]
    for _ in range(14):
        bench.batch(noisy)
    assert bench.folding.summarise(bench.add, full_before_s=1_000, before_s=50) > 0
    assert len(bench.made[0][2]) <= SUMMARY_BYTES_MAX
    while bench.folding.summarise(bench.add, full_before_s=1_000, before_s=50):
        pass
    left = 14 - sum(len(bench.told(at)) for at in range(len(bench.made)))
    assert bench.folding.summarise(bench.add, full_before_s=50, before_s=50) == 0
    assert bench.summarise() == left


def test_rows_that_are_hours_apart_stay_as_they_are(bench: Bench) -> None:
    bench.batch([(HOUR + 7200 * at, (at * 982_451_653 % (1 << 40),)) for at in range(40)])
    assert (bench.summarise(), bench.fold()) == (0, 0)


def test_folding_uses_the_summary_that_is_there_and_names_what_goes(bench: Bench) -> None:
    for at in range(3):
        bench.batch(rows(20 * (at + 1)))
    bench.summarise()
    freed = bench.fold()
    assert freed > 3 * 64
    assert len(bench.made) == 1
    (dropped,) = bench.buried
    assert (dropped.epoch, dropped.sequences, dropped.rows, dropped.reason) == (
        bench.database.epoch, (1, 2, 3), 120, "folded",
    )  # fmt: skip
    assert bench.fold() == 0
    assert [unseal(each.sealed).sequence for each in bench.queue.load_window()] == [4]


def test_a_summary_is_never_summarised_and_delivered_detail_is_forgotten(bench: Bench) -> None:
    bench.batch(rows())
    assert [bench.summarise(), bench.summarise(), bench.summarise()] == [1, 0, 0]
    bench.database.update("parcels", "sequence = 1", {}, state=2)
    bench.folding.forget_gone()
    left = bench.database.rows("SELECT sequence FROM summaries")
    assert left == [(2,)]
    assert bench.fold() == 0


def test_sums_beyond_64_bits_leave_a_batch_as_it_is(bench: Bench) -> None:
    bench.batch([(HOUR + at, (VALUE_MAX,)) for at in range(3)])
    bench.batch(rows())
    assert (bench.fold() > 0, bench.fold()) == (True, 0)
    assert [each.sequences for each in bench.buried] == [(2,)]
    (name,) = bench.database.rows("SELECT name FROM incidents WHERE name = 'batch.unfoldable'")
    assert name


def test_an_older_epoch_is_named(bench: Bench) -> None:
    bench.batch(rows())
    old = bench.database.epoch
    bench.database.update("parcels", "sequence = 1", {}, epoch=(old ^ 1).to_bytes(8, "big"))
    bench.summarise()
    assert decode_summary(bench.made[0][0], bench.made[0][2]).epoch == old ^ 1

"""Parcels as the fleet store takes and gives them: sealed bytes are the evidence, the parts are what indexes them.

The gateway verifies and decodes; the store stores. An `IngestItem` therefore carries the sealed bytes as they came and
one typed part that says what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from protocol.numbers import DocumentKind, Outcome, ParcelKind, Precedence


@dataclass(frozen=True, slots=True)
class BatchPart:
    """A telemetry batch. Without `schema_digest` it is parked, and `first_ms`, `last_ms` and `rows` may be None.

    The times may be what the batch's head promises: `add_rollups` corrects them when the batch has been decoded.
    With a `boot` the times are monotonic milliseconds of that boot until `set_clock` tells its offset.
    """

    schema_number: int
    schema_digest: bytes | None
    boot: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class EventPart:
    """An event; with a `boot` its time is monotonic, as in `BatchPart`."""

    name: str
    time_ms: int
    values_json: str = "{}"
    boot: int | None = None


@dataclass(frozen=True, slots=True)
class ReceiptPart:
    """What the truck did with a document. `name` is "" for kinds of which a truck has one stream only."""

    document: DocumentKind
    digest: bytes
    outcome: Outcome
    name: str = ""
    version: int = 0
    reason: str = ""
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class SchemaPart:
    """A truck gives `number` to a schema; within an epoch the number never means another one."""

    number: int
    digest: bytes
    encoded: bytes


@dataclass(frozen=True, slots=True)
class TombstonePart:
    """Sequences of `epoch` (first and last of each range) that the truck dropped by policy and that will never come."""

    epoch: int
    ranges: tuple[tuple[int, int], ...]
    reason: str
    rows: int = 0


Part = BatchPart | EventPart | ReceiptPart | SchemaPart | TombstonePart
KIND_OF_PART: dict[type[Part], ParcelKind] = {
    BatchPart: ParcelKind.BATCH,
    EventPart: ParcelKind.EVENT,
    ReceiptPart: ParcelKind.RECEIPT,
    SchemaPart: ParcelKind.SCHEMA,
    TombstonePart: ParcelKind.TOMBSTONE,
}


@dataclass(frozen=True, slots=True)
class IngestItem:
    """One verified parcel: `sealed` as it came, over `link`, at `received_ms`."""

    truck: str
    link: str
    epoch: int
    sequence: int
    precedence: Precedence
    sealed: bytes
    received_ms: int
    part: Part

    @property
    def kind(self) -> ParcelKind:
        """Return the kind of parcel that the part makes it."""
        return KIND_OF_PART[type(self.part)]


class IngestStatus(IntEnum):
    """What became of an item. STORED, DUPLICATE and CONFLICT are committed and covered by the acknowledgement."""

    STORED = 1
    DUPLICATE = 2
    CONFLICT = 3  # stored as evidence, but its schema number already means another schema in this epoch
    BEYOND_GAPS = 4  # not stored: one gap more than an epoch may have; the truck sends it again once gaps are filled
    UNKNOWN_TRUCK = 5  # not stored
    REVOKED_TRUCK = 6  # not stored
    TAKEN = 7  # not stored: another parcel has its number, so the truck's state was put back or cloned


@dataclass(frozen=True, slots=True)
class EpochState:
    """What is committed of one epoch: all up to `cumulative`, and `ranges` (ascending, first and last) above it.

    Tombstoned sequences count as committed, since they will never come.
    """

    truck: str
    epoch: int
    cumulative: int
    ranges: tuple[tuple[int, int], ...]
    started_ms: int
    last_ms: int

    def covers(self, sequence: int) -> bool:
        """Return whether the parcel of this sequence is committed (or tombstoned)."""
        return sequence <= self.cumulative or any(first <= sequence <= last for first, last in self.ranges)


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of one item, and the state of its epoch after the commit (None for an unknown or revoked truck)."""

    item: IngestItem
    status: IngestStatus
    state: EpochState | None

    @property
    def committed(self) -> bool:
        """Return whether the acknowledgement may cover the parcel."""
        return self.status in (IngestStatus.STORED, IngestStatus.DUPLICATE, IngestStatus.CONFLICT)


@dataclass(frozen=True, slots=True)
class ParcelKey:
    """A parcel's name for ever."""

    truck: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class ParcelRecord:
    """A parcel as it came."""

    key: ParcelKey
    kind: ParcelKind
    precedence: Precedence
    link: str
    received_ms: int
    sealed: bytes


class BatchState(IntEnum):
    """Where a batch is on its way into the rollups."""

    PARKED = 0  # its schema is not known yet
    TIMELESS = 1  # its boot's clock is not known yet
    READY = 2  # to be rolled up
    ROLLED = 3
    REJECTED = 4  # its schema came, and the signature or the body does not hold


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A stored batch. Times are wall time once `offset_ms` is known (0 for a batch that came with wall time)."""

    id: int
    key: ParcelKey
    state: BatchState
    schema_number: int
    schema_digest: bytes | None
    boot: int | None
    offset_ms: int | None
    first_ms: int | None
    last_ms: int | None
    rows: int | None
    received_ms: int
    sealed: bytes

    @property
    def cursor(self) -> tuple[int, int]:
        """Return what `batches(after=...)` continues from."""
        return (self.first_ms or 0, self.id)


@dataclass(frozen=True, slots=True)
class UnparkedBatch:
    """A parked batch whose schema came and whose signature and body hold; times as in `BatchPart`."""

    key: ParcelKey
    schema_digest: bytes
    first_ms: int
    last_ms: int
    rows: int


@dataclass(frozen=True, slots=True)
class BatchSpan:
    """When the rows of a batch really were, in wall time, once somebody has decoded it; `id` is the record's."""

    id: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A stored event. `time_ms` is wall time once `offset_ms` is known."""

    id: int
    key: ParcelKey
    name: str
    time_ms: int
    boot: int | None
    offset_ms: int | None
    precedence: Precedence
    values_json: str
    received_ms: int


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """A parcel as it waited: its bytes, when the truck had it, and when it came."""

    id: int
    precedence: Precedence
    bytes: int
    at_ms: int
    received_ms: int


@dataclass(frozen=True, slots=True)
class ReceiptRecord:
    """A stored receipt."""

    id: int
    key: ParcelKey
    document: DocumentKind
    digest: bytes
    outcome: Outcome
    name: str
    version: int
    reason: str
    time_ms: int
    received_ms: int


@dataclass(frozen=True, slots=True)
class SchemaRecord:
    """A schema under the number that a truck gave it in one epoch."""

    truck: str
    epoch: int
    number: int
    digest: bytes
    encoded: bytes
    registered_ms: int


@dataclass(frozen=True, slots=True)
class QuarantinedRecord:
    """Bytes that could not be taken, and why."""

    id: int
    truck: str
    epoch: int | None
    sequence: int | None
    sealed: bytes
    reason: str
    received_ms: int


HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Rollup:
    """Values of one channel within [start_ms, start_ms + step_ms); `step_ms` is HOUR_MS or DAY_MS, days are UTC.

    `repaired` of them were taken under a clock that became known later; `period_s` is the shortest at which they came.
    """

    truck: str
    channel: str
    step_ms: int
    start_ms: int
    count: int
    minimum: float
    maximum: float
    sum: float
    last: float
    last_ms: int
    unit: str = ""
    repaired: int = 0
    period_s: int = 60

    @property
    def mean(self) -> float:
        """Return the mean of the values."""
        return self.sum / self.count


@dataclass(frozen=True, slots=True)
class KnownChannel:
    """A channel that a truck has rollups of, the hour of the first (Unix ms), and the shortest period of its values."""

    channel: str
    unit: str
    first_ms: int
    period_s: int


@dataclass(frozen=True, slots=True)
class LatestValue:
    """The newest value of a channel that was rolled up."""

    truck: str
    channel: str
    unit: str
    time_ms: int
    value: float


@dataclass(frozen=True, slots=True)
class RepairedBoot:
    """Rows taken under an unset clock: their wall times are the truck's times of that boot plus `offset_ms`."""

    boot: int
    offset_ms: int
    batches: int
    rows: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class EpochCoverage:
    """What came and what is missing of one epoch. Ranges are (first, last) of sequences."""

    epoch: int
    started_ms: int
    last_ms: int
    highest: int
    missing: tuple[tuple[int, int], ...]
    dropped: tuple[tuple[int, int, str], ...]
    dropped_rows: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a truck's data of a period is here: batches by state, and every epoch's gaps, named exactly.

    `to_roll_up` batches are not in the rollups yet, so hours and days may still grow.
    """

    truck: str
    batches: int
    rows: int
    first_ms: int | None
    last_ms: int | None
    parked: int
    timeless: int
    rejected: int
    to_roll_up: int
    repaired: tuple[RepairedBoot, ...]
    epochs: tuple[EpochCoverage, ...]

"""Every message that is not a document: parcels going up, acknowledgements coming down, pieces, enrolment.

Each class is one rule of fleet.cddl under the same name. Parcels are signed by the truck end to end; the rest is
protected by OSCORE hop by hop and says nothing that a truck would act on without a signed document.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

from msgspec import Meta, field

from protocol import cbor, cose
from protocol.errors import MalformedError
from protocol.numbers import (
    BURST_PIECES_MAX,
    BURST_RUNS_MAX,
    BURST_SPACING_US_MAX,
    CBOR_BYTES_MAX,
    CODEC_ASSUMED,
    CONTEXT_BASE,
    CONTEXT_ENROL,
    CONTEXT_PARCEL,
    DESIRED_DIGEST_BYTES,
    ENROL_SECRET_BYTES,
    HELD_MANIFESTS_MAX,
    LINKS_MAX,
    PARCEL_BYTES_MAX,
    PARCELS_IN_UPLOAD_MAX,
    PIECES_IN_REQUEST_MAX,
    RANGES_IN_ACK_MAX,
    REFUSED_IN_ACK_MAX,
    SIGNATURE_BYTES,
    STICK_UPLOADS_BYTES_MAX,
    STICK_UPLOADS_MAX,
    WIRE_VERSION,
    DocumentKind,
    Outcome,
    ParcelKind,
    Precedence,
    Refusal,
)
from protocol.wire import (
    Digest,
    Epoch,
    Name,
    PublicKey,
    Sequence,
    Signature,
    Text,
    Uint,
    WireArray,
    WireMap,
)

Sealed = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES + 6, max_length=PARCEL_BYTES_MAX)]
DesiredDigest = Annotated[bytes, Meta(min_length=DESIRED_DIGEST_BYTES, max_length=DESIRED_DIGEST_BYTES)]


class Parcel(WireArray, frozen=True):
    """The unit of a truck's uplink queue. `epoch` is None on the wire once the gateway has acknowledged one of it."""

    epoch: Epoch | None
    sequence: Sequence
    precedence: Precedence
    kind: ParcelKind
    payload: Annotated[bytes, Meta(max_length=PARCEL_BYTES_MAX)]


@lru_cache(maxsize=4_096)
def parcel_aad(truck: str, epoch: int, meaning: bytes | None) -> bytes:
    """Return the external_aad of a parcel: what both sides know and nobody pays for.

    `meaning` (32 bytes, see `batch_meaning`) is given for a batch: its signature also fixes what its bytes mean.
    """
    return cbor.encode([CONTEXT_PARCEL, truck, epoch, meaning])


def batch_meaning(schema_digest: bytes, base_digest: bytes | None = None) -> bytes:
    """Return what fixes the rows of a batch besides its bytes: its schema, and the batch it goes on from, if any."""
    return schema_digest if base_digest is None else cose.digest(CONTEXT_BASE.encode() + schema_digest + base_digest)


def content_digest(sealed: bytes) -> bytes:
    """Return the SHA-256 of a sealed parcel without its signature: of a base, for `batch_meaning`."""
    return cose.digest(sealed[:-SIGNATURE_BYTES])


def seal(key: cose.SigningKey, parcel: Parcel, truck: str, meaning: bytes | None = None) -> bytes:
    """Return the sealed parcel: its array, the epoch left out, then the 64 bytes of its COSE_Sign1 signature."""
    if parcel.epoch is None:
        raise ValueError("a parcel is sealed under its epoch")
    core = Parcel(None, parcel.sequence, parcel.precedence, parcel.kind, parcel.payload).encode()
    aad = parcel_aad(truck, parcel.epoch, meaning)
    return core + key.sign(cose.sign1_structure(core, aad))


def unseal(sealed: bytes) -> Parcel:
    """Return the parcel inside a sealed one, NOT yet verified; raise `MalformedError`."""
    if not SIGNATURE_BYTES < len(sealed) <= PARCEL_BYTES_MAX:
        raise MalformedError("a sealed parcel is longer than its signature and at most 16 KiB")
    return Parcel.decode(sealed[:-SIGNATURE_BYTES])


def verify_parcel(sealed: bytes, public_key: bytes, truck: str, epoch: int, meaning: bytes | None = None) -> None:
    """Check a sealed parcel's signature under the epoch it was taken for; raise `SignatureError`."""
    core, signature = sealed[:-SIGNATURE_BYTES], sealed[-SIGNATURE_BYTES:]
    cose.verify(public_key, cose.sign1_structure(core, parcel_aad(truck, epoch, meaning)), signature)


class Batch(WireArray, frozen=True):
    """The payload of a BATCH parcel: rows of one schema. `boot` is None when times are wall time (s, Unix).

    Otherwise times are monotonic seconds of that boot, to be repaired when a CLOCK event tells its offset. `base` names
    the batch of the same schema that it goes on from: how many sequences before its own, or one of `base_epoch`.
    """

    schema: Annotated[int, Meta(ge=0, le=0xFFFF)]
    boot: Uint | None
    body: bytes
    base: Sequence | None = None
    base_epoch: Epoch | None = None

    def encode(self) -> bytes:
        """Return the deterministic encoding; a base that is not there takes no byte."""
        base = [each for each in (self.base, self.base_epoch) if each is not None]
        return cbor.encode([self.schema, self.boot, self.body, *base])

    def base_of(self, epoch: int, sequence: int) -> tuple[int, int] | None:
        """Return epoch and sequence of the base of a batch that itself has these; raise `MalformedError`."""
        if self.base is None:
            return None
        if self.base_epoch is not None:
            return self.base_epoch, self.base
        if self.base >= sequence:
            raise MalformedError("a batch goes on from one that was before the first")
        return epoch, sequence - self.base


class SchemaOffer(WireArray, frozen=True):
    """The payload of a SCHEMA parcel: the number that this truck gave to a schema, and the schema's own encoding."""

    number: Annotated[int, Meta(ge=0, le=0xFFFF)]
    schema: Annotated[bytes, Meta(max_length=PARCEL_BYTES_MAX)]


class Event(WireMap, frozen=True):
    """The payload of an EVENT parcel. `time_ms` is wall time, or monotonic time of boot `boot` when that is given."""

    labels: ClassVar = {"name": 1, "time_ms": 2, "values": 3, "boot": 4}
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
    time_ms: Uint
    values: Annotated[dict[Annotated[str, Meta(max_length=64)], int | bool | Text], Meta(max_length=64)] = field(
        default_factory=dict
    )
    boot: Uint | None = None


class Receipt(WireMap, frozen=True):
    """The payload of a RECEIPT parcel: what the truck did with a document."""

    labels: ClassVar = {
        "document": 1,
        "digest": 2,
        "outcome": 3,
        "name": 4,
        "version": 5,
        "reason": 6,
        "time_ms": 7,
    }
    document: DocumentKind
    digest: Digest
    outcome: Outcome
    name: Text = ""
    version: Uint = 0
    reason: Text = ""
    time_ms: Uint = 0


class Tombstone(WireMap, frozen=True):
    """The payload of a TOMBSTONE parcel: parcels that policy had to drop or fold, named exactly."""

    labels: ClassVar = {"epoch": 1, "ranges": 2, "reason": 3, "rows": 4}
    epoch: Epoch
    ranges: Annotated[tuple[tuple[Sequence, Sequence], ...], Meta(min_length=1, max_length=256)]
    reason: Text
    rows: Uint = 0


class Upload(WireMap, frozen=True):
    """POST /u: sealed parcels, in the order in which they should be stored.

    `spent_since_s` (Unix) asks for more than the calendar month: a billing period may have begun before it.
    """

    labels: ClassVar = {"parcels": 1, "epoch": 2, "ask_time": 3, "version": 4, "ask_spent": 5, "spent_since_s": 6}
    parcels: Annotated[tuple[Sealed, ...], Meta(max_length=PARCELS_IN_UPLOAD_MAX)] = ()
    epoch: Epoch | None = None
    ask_time: bool = False
    version: Uint = WIRE_VERSION
    ask_spent: bool = False
    spent_since_s: Uint | None = None


class Ack(WireMap, frozen=True):
    """The answer to an upload: all up to `cumulative` are committed, and the ranges above it too.

    `desired` is there only while the truck's last receipt names another desired state; `time_s` and `spent` (link,
    bytes of flash, bytes of the others in the month of `time_s`, or since `spent_since_s`, as the gateway counted them)
    only when asked.
    `codec` is the newest that the gateway decodes, told with the time.
    """

    labels: ClassVar = {
        "cumulative": 1,
        "ranges": 2,
        "desired": 3,
        "time_s": 4,
        "refused": 5,
        "schemas": 6,
        "epoch_unknown": 7,
        "version": 8,
        "spent": 9,
        "codec": 10,
        "spent_since_s": 11,
    }
    cumulative: Uint
    ranges: Annotated[tuple[tuple[Sequence, Sequence], ...], Meta(max_length=RANGES_IN_ACK_MAX)] = ()
    desired: DesiredDigest | None = None
    time_s: Uint | None = None
    refused: Annotated[tuple[tuple[Sequence, Refusal], ...], Meta(max_length=REFUSED_IN_ACK_MAX)] = ()
    schemas: Annotated[tuple[Uint, ...], Meta(max_length=16)] = ()
    epoch_unknown: bool = False
    version: Uint = WIRE_VERSION
    spent: Annotated[tuple[tuple[Name, Uint, Uint], ...], Meta(max_length=LINKS_MAX)] | None = None
    codec: Uint = CODEC_ASSUMED
    spent_since_s: Uint | None = None

    def covers(self, sequence: int) -> bool:
        """Return whether the parcel of this sequence is committed at the gateway."""
        if sequence <= self.cumulative:
            return True
        for first, last in self.ranges:
            if sequence <= last:
                return first <= sequence
        return False

    def tells_of(self, sequence: int) -> bool:
        """Return whether a sequence that is not covered is not committed: beyond a full list of ranges it may be."""
        return len(self.ranges) < RANGES_IN_ACK_MAX or sequence < self.ranges[-1][1]


class Carried(WireMap, frozen=True):
    """What a courier carries for a truck in one file: uploads as they would go over a link, most urgent first."""

    labels: ClassVar = {"truck": 1, "uploads": 2}
    truck: Name
    uploads: Annotated[
        tuple[Annotated[bytes, Meta(min_length=1, max_length=CBOR_BYTES_MAX)], ...],
        Meta(min_length=1, max_length=STICK_UPLOADS_MAX),
    ]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return what a file holds; raise `MalformedError`."""
        return cls.from_fields(cbor.decode(data, bytes_max=STICK_UPLOADS_BYTES_MAX))


class PiecesRequest(WireArray, frozen=True):
    """FETCH /p: `count` pieces of the object named by `digest`, from piece `first` on."""

    digest: Digest
    first: Annotated[int, Meta(ge=0, le=1 << 40)]
    count: Annotated[int, Meta(ge=1, le=PIECES_IN_REQUEST_MAX)] = 1


class BurstRequest(WireArray, frozen=True):
    """FETCH /b: some pieces of the object named by `digest`, one answer each, `spacing_us` microseconds apart.

    `runs` alternate: so many pieces from `first` on, so many left out, so many pieces, and so on.
    """

    digest: Digest
    first: Annotated[int, Meta(ge=0, le=1 << 40)]
    runs: Annotated[tuple[Annotated[int, Meta(ge=1, le=1 << 16)], ...], Meta(min_length=1, max_length=BURST_RUNS_MAX)]
    spacing_us: Annotated[int, Meta(ge=0, le=BURST_SPACING_US_MAX)] = 0

    @classmethod
    def of(cls, digest: bytes, pieces: list[int], spacing_us: int) -> BurstRequest:
        """Return the request for these pieces, which ascend."""
        runs, before = [1], pieces[0]
        for piece in pieces[1:]:
            if piece == before + 1:
                runs[-1] += 1
            else:
                runs += [piece - before - 1, 1]
            before = piece
        return cls(digest, pieces[0], tuple(runs), spacing_us)

    def pieces(self) -> list[int]:
        """Return the pieces in the order of their answers; raise `MalformedError` beyond `BURST_PIECES_MAX`."""
        if len(self.runs) % 2 == 0 or sum(self.runs[::2]) > BURST_PIECES_MAX:
            raise MalformedError(f"a burst ends with a run of pieces and has at most {BURST_PIECES_MAX}")
        at = self.first
        found: list[int] = []
        for turn, count in enumerate(self.runs):
            if turn % 2 == 0:
                found += range(at, at + count)
            at += count
        return found


class PackRequest(WireArray, frozen=True):
    """FETCH /k: ask for the pack that leads to a manifest's files from those of the manifests held.

    `profile` is the fingerprint of the truck's decoders: a pack only uses transforms that it can undo bit for bit.
    `views` is the newest set of views that the truck knows.
    """

    manifest: Digest
    held: Annotated[tuple[Digest, ...], Meta(max_length=HELD_MANIFESTS_MAX)] = ()
    profile: Annotated[bytes, Meta(max_length=16)] = b""
    views: Annotated[int, Meta(ge=0, le=255)] = 0


class PackOffer(WireMap, frozen=True):
    """The answer: the pack's digest and size in bytes, or in how many seconds to ask again while it is being made."""

    labels: ClassVar = {"digest": 1, "size": 2, "wait_s": 3}
    digest: Digest | None = None
    size: Uint = 0
    wait_s: Uint = 0


class EnrolRequest(WireMap, frozen=True):
    """POST /e, inside OSCORE: a truck that holds a one-time code makes its keys known and proves to have them."""

    labels: ClassVar = {"truck": 1, "secret": 2, "signing_key": 3, "proof": 4, "version": 5}
    truck: Name
    secret: Annotated[bytes, Meta(min_length=ENROL_SECRET_BYTES, max_length=ENROL_SECRET_BYTES)]
    signing_key: PublicKey
    proof: Signature
    version: Uint = WIRE_VERSION


def enrol_proof(truck: str, secret: bytes, signing_key: bytes, credential: bytes, gateway_key: bytes) -> bytes:
    """Return what a joining truck signs: it binds its signing key to its EDHOC credential and the gateway."""
    payload = cbor.encode([truck, cose.digest(secret), signing_key, credential, gateway_key])
    return cose.sign1_structure(payload, cbor.encode([CONTEXT_ENROL]))


class Enrolled(WireMap, frozen=True):
    """The answer to an enrolment: where the truck belongs and what time it is."""

    labels: ClassVar = {"group": 1, "root": 2, "time_s": 3}
    group: Name
    root: Digest
    time_s: Uint


def decode_payload(parcel: Parcel) -> Any:
    """Return the typed payload of a parcel by its kind; raise `MalformedError`."""
    return _PAYLOADS[parcel.kind].decode(parcel.payload)


_PAYLOADS: dict[ParcelKind, type[WireArray] | type[WireMap]] = {
    ParcelKind.BATCH: Batch,
    ParcelKind.EVENT: Event,
    ParcelKind.RECEIPT: Receipt,
    ParcelKind.SCHEMA: SchemaOffer,
    ParcelKind.TOMBSTONE: Tombstone,
}

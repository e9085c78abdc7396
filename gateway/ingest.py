"""Ingest: an upload's parcels are checked, committed together with everybody else's, and only then acknowledged.

Each parcel's signature is verified over the very bytes that are stored as evidence. What does not verify is refused by
its sequence and never stored as telemetry; a batch of a schema that is not here yet is parked as it came, and the
schema asked for. Of a batch only the head is read: its rows are decoded when they are rolled up or asked for.

How uploads share transactions is in `gateway.commits`.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence

import structlog

from gateway.commits import GroupCommit
from gateway.forks import Forks
from gateway.parked import Parked
from gateway.parts import BOOT_MAX, TIME_MS_MAX, batch_part, check_boot, check_time
from protocol import cose
from protocol.errors import MalformedError, PeerError, SignatureError, UnknownEpochError
from protocol.messages import (
    Ack,
    Batch,
    Event,
    Parcel,
    Receipt,
    SchemaOffer,
    Tombstone,
    Upload,
    decode_payload,
    unseal,
    verify_parcel,
)
from protocol.numbers import RANGES_IN_ACK_MAX, REFUSED_IN_ACK_MAX, ParcelKind, Refusal
from protocol.schema import Codec, Schema, decode_schema
from store.attempts import Attempts
from store.fleet.evidence import (
    BatchPart,
    EpochState,
    EventPart,
    IngestItem,
    IngestStatus,
    ParcelKey,
    Part,
    ReceiptPart,
    SchemaPart,
    TombstonePart,
)
from store.fleet.fleet import FleetStore
from store.fleet.records import TruckRecord

log = structlog.get_logger("gateway.ingest")

_SCHEMAS_CACHED_MAX = 20_000
_SCHEMAS_ASKED_MAX = 16
_TAKEN = "its number stands for another parcel: this truck's disk was put back from an image, or it has a clone"
# Errors that bytes can bring about, unlike those of a database or a disk, which pass.
_UNFORESEEN = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Ingest:
    """Takes uploads of all trucks into the fleet store."""

    def __init__(
        self,
        fleet: FleetStore,
        commits: GroupCommit,
        *,
        now_ms: Callable[[], int],
        attempts: Attempts | None = None,
    ) -> None:
        self._fleet = fleet
        self._attempts = attempts or Attempts()
        self._now_ms = now_ms
        self._commits = commits
        self._schemas: OrderedDict[tuple[str, int, int], tuple[bytes, Schema]] = OrderedDict()
        self._loading = asyncio.Lock()
        self._forks = Forks(fleet, now_ms=now_ms)
        self._epochs: dict[str, tuple[int, ...]] = {}
        self._parked = Parked(fleet, self._schema, now_ms=now_ms)
        self._carried: set[bytes] = set()  # schemas whose batches may be gone on from

    async def upload(self, truck: TruckRecord, link: str, upload: Upload) -> tuple[Ack, tuple[ParcelKind, ...]]:
        """Store an upload's parcels and return their acknowledgement, without its desired state, and their kinds."""
        if not upload.parcels:
            # A hello: the truck wants the time and its desired state, and names no epoch to be acknowledged.
            return Ack(cumulative=0), ()
        refused: list[tuple[int, Refusal]] = []
        asked: set[int] = set()
        items: list[IngestItem] = []
        kinds: list[ParcelKind] = []
        epoch = upload.epoch
        offered: dict[int, tuple[bytes, Schema]] = {}
        for sealed in upload.parcels:
            try:
                parcel = unseal(sealed)
            except PeerError as error:
                await self._quarantine(truck, epoch, None, sealed, str(error))
                continue
            kinds.append(parcel.kind)
            try:
                with self._attempts.of(cose.digest(sealed)):
                    item = await self._check(truck, link, epoch, parcel, sealed, offered)
            except UnknownEpochError:
                return Ack(cumulative=0, epoch_unknown=True), tuple(kinds)
            except PeerError as error:
                reason = Refusal.BAD_SIGNATURE if isinstance(error, SignatureError) else Refusal.MALFORMED
                refused.append((parcel.sequence, reason))
                await self._quarantine(truck, epoch, parcel.sequence, sealed, str(error))
                continue
            except _UNFORESEEN as error:
                # What its bytes bring about they would bring about at every try, and hold up all that comes behind.
                log.exception("parcel.unforeseen", truck=truck.name, sequence=parcel.sequence)
                refused.append((parcel.sequence, Refusal.MALFORMED))
                await self._quarantine(truck, epoch, parcel.sequence, sealed, f"{type(error).__name__}: {error}"[:200])
                continue
            epoch = item.epoch
            if isinstance(item.part, BatchPart) and item.part.schema_digest is None:
                number = item.part.schema_number
                if number not in offered and await self._schema(truck.name, epoch, number) is None:
                    asked.add(number)  # otherwise it waits for its base, for which the gap asks
            items.append(item)
        state, taken = await self._commit(items) if items else (await self._fleet.epoch_state(truck.name, epoch), ())
        for item in taken:
            items.remove(item)
            refused.append((item.sequence, Refusal.TAKEN))
            await self._quarantine(truck, epoch, item.sequence, item.sealed, _TAKEN)
        if state is None:
            # Nothing of this epoch is here. A truck that named it learns what was wrong; one that did not names it now.
            unknown = epoch is None
            return Ack(cumulative=0, refused=tuple(refused[:REFUSED_IN_ACK_MAX]), epoch_unknown=unknown), tuple(kinds)
        await self._forks.watch(state, items, taken)
        await self._after(truck, items)
        ack = Ack(
            cumulative=state.cumulative,
            ranges=_ranges_to_tell(state, [item.sequence for item in items]),
            refused=tuple(refused[:REFUSED_IN_ACK_MAX]),
            schemas=tuple(sorted(asked))[:_SCHEMAS_ASKED_MAX],
        )
        return ack, tuple(kinds)

    async def _commit(self, items: Sequence[IngestItem]) -> tuple[EpochState | None, tuple[IngestItem, ...]]:
        """Return the epoch's state, and the items whose numbers other parcels have."""
        results = await self._commits.commit(items)
        return results[-1].state, tuple(each.item for each in results if each.status is IngestStatus.TAKEN)

    async def _check(
        self,
        truck: TruckRecord,
        link: str,
        epoch: int | None,
        parcel: Parcel,
        sealed: bytes,
        offered: dict[int, tuple[bytes, Schema]],
    ) -> IngestItem:
        """Return the item of a parcel that verifies; raise `PeerError` of what does not."""
        payload = decode_payload(parcel)
        last: PeerError = UnknownEpochError("none is known")
        for candidate in await self._candidates(truck.name, epoch):
            try:
                part = await self._part(truck, candidate, parcel, payload, sealed, offered, is_named=epoch is not None)
            except SignatureError as error:
                # Left out, the epoch is one of the newest; if it is none of them, the truck has to name it.
                last = error if epoch is not None else UnknownEpochError("the parcel verifies under none of them")
                continue
            self._epochs[truck.name] = (candidate, *[e for e in self._epochs.get(truck.name, ()) if e != candidate])[:2]
            return IngestItem(
                truck=truck.name,
                link=link,
                epoch=candidate,
                sequence=parcel.sequence,
                precedence=parcel.precedence,
                sealed=sealed,
                received_ms=self._now_ms(),
                part=part,
            )
        raise last

    async def _candidates(self, truck: str, epoch: int | None) -> tuple[int, ...]:
        if epoch is not None:
            return (epoch,)
        if truck not in self._epochs:
            self._epochs[truck] = tuple(state.epoch for state in await self._fleet.epochs_of(truck, 2))
        return self._epochs[truck]

    async def _part(
        self,
        truck: TruckRecord,
        epoch: int,
        parcel: Parcel,
        payload: Batch | Event | Receipt | SchemaOffer | Tombstone,
        sealed: bytes,
        offered: dict[int, tuple[bytes, Schema]],
        *,
        is_named: bool,
    ) -> Part:
        if isinstance(payload, Batch):
            known = offered.get(payload.schema) or await self._schema(truck.name, epoch, payload.schema)
            if known is None and not is_named:
                # Nothing but the signature could tell which epoch it is of, and that needs the schema.
                raise SignatureError("a batch of an unknown schema, and of no named epoch")
            check_boot(payload.boot)
            if known is None:
                # Its signature covers the schema's digest: it is verified when the schema is here (`_unpark`).
                return BatchPart(payload.schema, None, payload.boot)
            meaning: bytes | None = known[0]
            if payload.base is not None:
                meaning = await self._parked.meaning(truck.name, epoch, parcel.sequence, payload, *known)
            if meaning is None and not is_named:
                raise SignatureError("a batch whose base is not here, and of no named epoch")
            if meaning is None:
                return BatchPart(payload.schema, None, payload.boot)
            verify_parcel(sealed, truck.signing_key, truck.name, epoch, meaning)
            if known[1].codec is Codec.SUMMARY:
                return await asyncio.to_thread(batch_part, payload, *known)  # it is decoded whole
            return batch_part(payload, *known)
        verify_parcel(sealed, truck.signing_key, truck.name, epoch)
        match payload:
            case SchemaOffer():
                schema = decode_schema(payload.schema)
                digest = cose.digest(payload.schema)
                offered[payload.number] = (digest, schema)
                return SchemaPart(payload.number, digest, payload.schema)
            case Event():
                check_boot(payload.boot)
                check_time(payload.time_ms)
                return EventPart(payload.name, payload.time_ms, json.dumps(payload.values), payload.boot)
            case Receipt():
                if "\0" in payload.name + payload.reason:
                    raise MalformedError("a text with a NUL character")
                return ReceiptPart(
                    payload.document,
                    payload.digest,
                    payload.outcome,
                    payload.name,
                    payload.version,
                    payload.reason,
                    payload.time_ms,
                )
            case Tombstone():
                if any(first > last for first, last in payload.ranges) or "\0" in payload.reason:
                    raise MalformedError("a tombstone's ranges begin before they end, and its reason is plain text")
                return TombstonePart(payload.epoch, payload.ranges, payload.reason, payload.rows)

    async def _schema(self, truck: str, epoch: int, number: int) -> tuple[bytes, Schema] | None:
        key = (truck, epoch, number)
        known = self._schemas.get(key)
        if known is None:
            # A burst asks for the same one many times at once, and each decoding takes as long as a batch does.
            async with self._loading:
                known = self._schemas.get(key) or await self._load_schema(key)
            if known is None:
                return None
        self._schemas.move_to_end(key)
        return known

    async def _load_schema(self, key: tuple[str, int, int]) -> tuple[bytes, Schema] | None:
        record = await self._fleet.schema_numbered(*key)
        if record is None:
            return None
        known = self._schemas[key] = (record.digest, decode_schema(record.encoded))
        if known[1].codec is Codec.CARRIED:
            self._carried.add(record.digest)
        if len(self._schemas) > _SCHEMAS_CACHED_MAX:
            self._schemas.popitem(last=False)
        return known

    async def _after(self, truck: TruckRecord, items: Sequence[IngestItem]) -> None:
        """Follow up on what was committed: parked batches whose schema or base came, rows whose clock is known."""
        for item in items:
            if isinstance(item.part, SchemaPart):
                await self._parked.unpark(truck, item.epoch, item.part.number)
            elif isinstance(item.part, BatchPart) and item.part.schema_digest in self._carried:
                self._parked.note(
                    ParcelKey(truck.name, item.epoch, item.sequence), item.sealed, item.part.schema_digest
                )
            elif isinstance(item.part, EventPart) and item.part.name == "clock":
                values = json.loads(item.part.values_json)
                boot, offset_ms = values.get("boot"), values.get("offset_ms")
                if type(boot) is int and type(offset_ms) is int:
                    if not 0 <= boot <= BOOT_MAX or abs(offset_ms) > TIME_MS_MAX:
                        log.warning("clock.refused", truck=truck.name, boot=boot)
                        continue
                    repaired = await self._fleet.set_clock(truck.name, boot, offset_ms)
                    log.info("clock.repaired", truck=truck.name, batches=repaired)
        await self._parked.follow(truck, items)

    async def _quarantine(
        self, truck: TruckRecord, epoch: int | None, sequence: int | None, sealed: bytes, reason: str
    ) -> None:
        log.warning("parcel.refused", truck=truck.name, sequence=sequence, reason=reason)
        await self._fleet.quarantine(truck.name, epoch, sequence, sealed, reason, self._now_ms())


def _ranges_to_tell(state: EpochState, sequences: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the ranges that an acknowledgement has room for: first those that hold what it answers."""
    if len(state.ranges) <= RANGES_IN_ACK_MAX:
        return state.ranges
    mine = [each for each in state.ranges if any(each[0] <= sequence <= each[1] for sequence in sequences)]
    others = [each for each in state.ranges if each not in mine]
    return tuple(sorted([*mine, *others][:RANGES_IN_ACK_MAX]))

"""Parked batches: what waits for its schema, or for the batch that it goes on from, and is verified when that comes.

A truck goes on from what was acknowledged; a gateway that was restored from a backup may lack it. Then the batch is
parked as it came, as one of an unknown schema is: its signature fixes what it cannot know yet.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from gateway.parts import batch_part
from protocol.errors import MalformedError, PeerError, SignatureError
from protocol.messages import Batch, batch_meaning, content_digest, decode_payload, unseal, verify_parcel
from protocol.schema import Codec, Schema
from store.fleet.evidence import BatchPart, BatchRecord, BatchState, IngestItem, ParcelKey, UnparkedBatch
from store.fleet.fleet import FleetStore
from store.fleet.records import TruckRecord

_KEPT_MAX = 100_000
_WAITING_MAX = 20_000  # of a truck; what is beyond is found when the process starts anew
_SOUND = frozenset({BatchState.READY, BatchState.ROLLED, BatchState.TIMELESS})


SchemaOf = Callable[[str, int, int], Awaitable[tuple[bytes, Schema] | None]]


class Parked:
    """Digests of stored batches, and the bases that parked batches of each truck wait for.

    `schema_of(truck, epoch, number)` returns a schema's digest and the schema, or None while it is not here.
    """

    def __init__(self, fleet: FleetStore, schema_of: SchemaOf, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._schema_of = schema_of
        self._now_ms = now_ms
        # The digest of a batch's content, and that of its schema.
        self._known: OrderedDict[ParcelKey, tuple[bytes, bytes]] = OrderedDict()
        # By truck: the parked batches by the base that each waits for.
        self._waiting: dict[str, dict[ParcelKey, list[ParcelKey]]] = {}

    async def meaning(
        self, truck: str, epoch: int, sequence: int, batch: Batch, digest: bytes, schema: Schema
    ) -> bytes | None:
        """Return what the signature of a batch fixes; None while the batch that it goes on from is not here."""
        base = batch.base_of(epoch, sequence)
        if base is None:
            return digest
        if schema.codec is not Codec.CARRIED:
            raise MalformedError(f"a batch of the codec {schema.codec.name} has no base")
        content = await self._digest(ParcelKey(truck, *base), digest)
        return None if content is None else batch_meaning(digest, content)

    async def _digest(self, base: ParcelKey, schema_digest: bytes) -> bytes | None:
        """Return the digest of a stored and verified batch of a schema; None if there is none."""
        known = self._known.get(base)
        if known is None:
            record = await self._fleet.batch(base)
            if record is None or record.schema_digest is None or record.state not in _SOUND:
                return None
            known = self.note(base, record.sealed, record.schema_digest)
        return known[0] if known[1] == schema_digest else None

    def note(self, key: ParcelKey, sealed: bytes, schema_digest: bytes) -> tuple[bytes, bytes]:
        """Note a batch that is stored and verified."""
        known = self._known[key] = content_digest(sealed), schema_digest
        if len(self._known) > _KEPT_MAX:
            self._known.popitem(last=False)
        return known

    async def unpark(self, truck: TruckRecord, epoch: int, number: int) -> None:
        """Take up parked batches of a schema that is here now, but for those whose base still is not."""
        known = await self._schema_of(truck.name, epoch, number)
        if known is None:
            return
        waiting = self._waiting.setdefault(truck.name, {})
        due: list[ParcelKey] = []
        after = 0
        while records := await self._fleet.parked_batches(truck.name, number, epoch, after=after):
            after = records[-1].id
            for key in await self._take(truck, records, *known):
                due += waiting.pop(key, ())
        await self._take_all(truck, due)

    async def follow(self, truck: TruckRecord, items: Iterable[IngestItem]) -> None:
        """Take up what waited for batches that were just stored; note what of them waits itself."""
        if truck.name not in self._waiting:
            # What waited when this process started.
            self._waiting[truck.name] = {}
            for place in await self._fleet.parked_numbers(truck.name):
                await self.unpark(truck, *place)
        waiting = self._waiting[truck.name]
        due: list[ParcelKey] = []
        for item in items:
            if isinstance(item.part, BatchPart):
                key = ParcelKey(truck.name, item.epoch, item.sequence)
                # One that is parked is tried at once: its base may have come while it was stored.
                due += [key] if item.part.schema_digest is None else waiting.pop(key, ())
        await self._take_all(truck, due)

    async def _take_all(self, truck: TruckRecord, due: list[ParcelKey]) -> None:
        while due:
            key = due.pop()
            record = await self._fleet.batch(key)
            if record is None or record.state is not BatchState.PARKED:
                continue
            known = await self._schema_of(truck.name, key.epoch, record.schema_number)
            if known is not None and await self._take(truck, [record], *known):
                due += self._waiting[truck.name].pop(key, ())

    async def _take(
        self, truck: TruckRecord, records: Sequence[BatchRecord], digest: bytes, schema: Schema
    ) -> list[ParcelKey]:
        """Verify parked batches and take them up; return which. One whose base is missing waits for it."""
        good: dict[ParcelKey, tuple[UnparkedBatch, bytes]] = {}
        keys: tuple[bytes, ...] = ()
        for record in records:
            if not keys:
                # A batch that waited since before the truck enrolled anew was signed with the key it had then.
                old = [each.signing_key for each in await self._fleet.keys_of(truck.name)]
                keys = tuple(dict.fromkeys([truck.signing_key, *old]))
            try:
                payload = decode_payload(unseal(record.sealed))
                meaning = await self._meaning_of(record.key, payload, digest, schema, good)
                if meaning is not None:
                    taken = await asyncio.to_thread(_unparked, keys, record, meaning, payload, digest, schema)
                    good[record.key] = taken, record.sealed
            except PeerError as error:
                await self._fleet.reject_parked(record.key, str(error), self._now_ms())
        await self._fleet.unpark([taken for taken, _ in good.values()])
        if schema.codec is Codec.CARRIED:
            for key, (_, sealed) in good.items():
                self.note(key, sealed, digest)
        return list(good)

    async def _meaning_of(
        self,
        key: ParcelKey,
        payload: Batch,
        digest: bytes,
        schema: Schema,
        beside: Mapping[ParcelKey, tuple[UnparkedBatch, bytes]],
    ) -> bytes | None:
        base = payload.base_of(key.epoch, key.sequence)
        base_key = None if base is None else ParcelKey(key.truck, *base)
        if base_key is not None and base_key in beside and schema.codec is Codec.CARRIED:
            return batch_meaning(digest, content_digest(beside[base_key][1]))
        meaning = await self.meaning(key.truck, key.epoch, key.sequence, payload, digest, schema)
        if meaning is None and base_key is not None:
            waiting = self._waiting.setdefault(key.truck, {})
            if len(waiting) < _WAITING_MAX and key not in waiting.get(base_key, ()):
                waiting.setdefault(base_key, []).append(key)
        return meaning


def _unparked(
    keys: Sequence[bytes], record: BatchRecord, meaning: bytes, payload: Batch, digest: bytes, schema: Schema
) -> UnparkedBatch:
    key = record.key
    for index, signing_key in enumerate(keys):
        try:
            verify_parcel(record.sealed, signing_key, key.truck, key.epoch, meaning)
            break
        except SignatureError:
            if index == len(keys) - 1:
                raise
    part = batch_part(payload, digest, schema)
    return UnparkedBatch(key, digest, part.first_ms or 0, part.last_ms or 0, part.rows or 0)

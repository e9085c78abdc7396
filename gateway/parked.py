"""Parked batches: what waits for its schema, or for the batch that it goes on from, and is verified when that comes.

A truck goes on from what was acknowledged; a gateway that was restored from a backup may lack it. Then the batch is
parked as it came, as one of an unknown schema is: its signature fixes what it cannot know yet.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from gateway.parts import batch_part
from protocol.errors import MalformedError, PeerError, SignatureError
from protocol.messages import Batch, batch_meaning, content_digest, decode_payload, unseal, verify_parcel
from protocol.schema import Codec, Schema
from store.fleet.evidence import BatchPart, BatchRecord, BatchState, IngestItem, ParcelKey, UnparkedBatch
from store.fleet.fleet import FleetStore
from store.fleet.records import TruckRecord

_KEPT_MAX = 100_000
_PASSES_MAX = 64
_SOUND = frozenset({BatchState.READY, BatchState.ROLLED, BatchState.TIMELESS})


class Parked:
    """Digests of stored batches, and the bases that parked batches of each truck wait for."""

    def __init__(self, fleet: FleetStore, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._now_ms = now_ms
        # The digest of a batch's content, and that of its schema.
        self._known: OrderedDict[ParcelKey, tuple[bytes, bytes]] = OrderedDict()
        self._waiting: dict[str, dict[tuple[int, int], frozenset[ParcelKey]]] = {}

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

    async def due(self, truck: str, items: Iterable[IngestItem]) -> list[tuple[int, int]]:
        """Return the (epoch, schema number) of parked batches of a truck that may be taken up after `items` came."""
        if truck not in self._waiting:
            # What waited when this process started is tried at the truck's first upload.
            self._waiting[truck] = dict.fromkeys(await self._fleet.parked_numbers(truck), frozenset())
        waiting = self._waiting[truck]
        due = {place for place, bases in waiting.items() if not bases}
        for item in items:
            if isinstance(item.part, BatchPart):
                if item.part.schema_digest is None:
                    due.add((item.epoch, item.part.schema_number))
                elif waiting:
                    key = ParcelKey(truck, item.epoch, item.sequence)
                    due |= {place for place, bases in waiting.items() if key in bases}
        return sorted(due)

    def wait(self, truck: str, place: tuple[int, int], bases: frozenset[ParcelKey]) -> None:
        """Note which bases the parked batches of a schema wait for now; none: nothing of it waits for one."""
        waiting = self._waiting.setdefault(truck, {})
        if bases:
            waiting[place] = bases
        else:
            waiting.pop(place, None)

    async def unpark(self, truck: TruckRecord, epoch: int, number: int, digest: bytes, schema: Schema) -> None:
        """Take up parked batches of a schema that is here now, but for those whose base still is not."""
        keys = {truck.signing_key: None}
        for _ in range(_PASSES_MAX):
            missing: set[ParcelKey] = set()
            taken: set[ParcelKey] = set()
            after = 0
            while parked := await self._fleet.parked_batches(truck.name, number, epoch, after=after):
                after = parked[-1].id
                if len(keys) == 1:
                    # A batch that waited since before the truck enrolled anew was signed with the key it had then.
                    keys |= {each.signing_key: None for each in await self._fleet.keys_of(truck.name)}
                good: list[UnparkedBatch] = []
                for record in parked:
                    try:
                        payload = decode_payload(unseal(record.sealed))
                        sequence = record.key.sequence
                        meaning = await self.meaning(truck.name, epoch, sequence, payload, digest, schema)
                        if meaning is None:
                            missing.add(ParcelKey(truck.name, *payload.base_of(epoch, sequence)))
                            continue
                        good.append(
                            await asyncio.to_thread(_unparked, tuple(keys), record, meaning, payload, digest, schema)
                        )
                    except PeerError as error:
                        await self._fleet.reject_parked(record.key, str(error), self._now_ms())
                await self._fleet.unpark(good)
                taken |= {each.key for each in good}
            if not missing & taken:
                break
        self.wait(truck.name, (epoch, number), frozenset(missing))


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

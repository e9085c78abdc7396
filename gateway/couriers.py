"""Couriers: what goes on a stick for which trucks, and what comes back on one.

A stick is planned here and written where the operator is (`gateway.cli.usb`): the plan names documents and manifests,
and their bytes are fetched by digest as any other. What comes back is sealed by trucks and goes the way of every
upload. A stick is known by its id before it exists, so that it can be revoked whatever became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.documents import Documents
from gateway.ingest import Ingest
from gateway.ownkeys import OwnKeys
from gateway.packs import Packs
from protocol import cose
from protocol.documents import Desired, Stick, StickEpoch, StickPack, StickTruck, parse_document, sign_document
from protocol.edhoc import credential_key
from protocol.errors import MalformedError, PeerError, UntrustedError
from protocol.messages import Carried, Upload, unseal
from protocol.numbers import (
    RANGES_IN_ACK_MAX,
    STICK_EPOCHS_MAX,
    STICK_ID_BYTES,
    STICK_KEY_BYTES,
    STICK_PACKS_MAX,
    DocumentKind,
    Outcome,
)
from store.fleet.audit import note
from store.fleet.fleet import FleetStore
from store.fleet.records import StickRecord, TruckRecord
from store.sealing import INFO_UP, key_info, open_sealed, seal
from store.stickobjects import leaves_of

log = structlog.get_logger("gateway.couriers")

LINK = "usb"
_FILE_VERSION = 1


@dataclass(frozen=True, slots=True)
class TruckPlan:
    """What one truck gets: its desired state, the documents that it names, and the manifests whose files it wants.

    `held` are manifests whose files it has by its own receipts.
    """

    truck: str
    desired: bytes
    documents: tuple[bytes, ...]
    manifests: tuple[bytes, ...]
    held: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A stick and what is to be written on it."""

    record: StickRecord
    trucks: tuple[TruckPlan, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one file that a truck gave a courier: parcels that are new, that were here before, refused."""

    truck: str
    new: int
    known: int
    refused: int


class Couriers:
    """Plans sticks, revokes them, and takes what they bring."""

    def __init__(
        self,
        fleet: FleetStore,
        documents: Documents,
        ingest: Ingest,
        keys: OwnKeys,
        packs: Packs,
        *,
        now_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._fleet = fleet
        self._documents = documents
        self._ingest = ingest
        self._keys = keys
        self._packs = packs
        self._now_ms = now_ms
        self._entropy = entropy

    async def plan(self, trucks: Iterable[str], *, sealed: bool, lifetime_s: int, by: str, packs: bool = False) -> Plan:
        """Plan a stick for these trucks; raise `PeerError` naming the truck that cannot have one.

        `packs`: name the packs that the trucks are fetching, which then stand for the files that they make.
        """
        now_ms = self._now_ms()
        stick, key = self._entropy(STICK_ID_BYTES), self._entropy(STICK_KEY_BYTES) if sealed else None
        plans, entries = [], []
        named: dict[tuple[bytes, bytes], StickPack] = {}
        for name in sorted(set(trucks)):
            truck = await self._truck(name)
            plan = await self._truck_plan(truck)
            wrapped = b"" if key is None else _wrap(truck, stick, key)
            digest = cose.digest(plan.desired)
            entries.append(StickTruck(name, digest, await self._committed(name), wrapped))
            plans.append(plan)
            for each in await asyncio.to_thread(self._asked, plan) if packs else ():
                named[each.manifest, each.pack] = each
        document = Stick(
            document=DocumentKind.STICK,
            version=now_ms // 1000,
            issued_s=now_ms // 1000,
            expires_s=now_ms // 1000 + lifetime_s,
            stick=stick,
            trucks=tuple(entries),
            packs=tuple(named.values())[:STICK_PACKS_MAX],
        )
        signed = sign_document(document, [self._keys.freshness_for(self._documents.root)])
        record = StickRecord(stick, now_ms, by, document.expires_s * 1000, signed, key)
        await self._fleet.put_stick(record, len(plans))
        log.info("stick.planned", stick=stick.hex(), trucks=len(plans), sealed=sealed)
        return Plan(record, tuple(plans))

    def _asked(self, plan: TruckPlan) -> list[StickPack]:
        """Return the packs that a truck was offered for manifests that it still wants."""
        found = []
        for request, entry in self._packs.asked(plan.truck):
            if request.manifest in plan.manifests and request.manifest not in plan.held:
                leaves = leaves_of(self._packs.path(entry.digest))
                found.append(StickPack(request.manifest, request.held, entry.digest, entry.size, cose.digest(leaves)))
        return found

    def pack_path(self, digest: bytes) -> Path | None:
        """Return where a pack is, None if it is not here."""
        path = self._packs.path(digest)
        return path if path.exists() else None

    async def again(self, stick: bytes) -> Plan:
        """Return a stick's plan once more, so that writing it can go on; raise `PeerError` for one that is gone."""
        record = await self._usable(stick)
        document, _ = parse_document(record.signed, Stick)
        plans = [await self._truck_plan(await self._truck(each.truck)) for each in document.trucks]
        if any(cose.digest(plan.desired) != each.desired for plan, each in zip(plans, document.trucks, strict=True)):
            raise UntrustedError("something else is desired of its trucks by now: plan another stick")
        return Plan(record, tuple(plans))

    async def revoke(self, stick: bytes, by: str) -> StickRecord | None:
        """Revoke a stick, for the gateway at once and for trucks by their next desired state; None: there is none."""
        if await self._fleet.revoke_stick(stick, by, self._now_ms()):
            log.warning("stick.revoked", stick=stick.hex(), by=by)
            await self._documents.refresh_all()
        return await self._fleet.stick(stick)

    async def take(self, data: bytes, stick: bytes | None, by: str) -> Taken:
        """Take one file that a truck gave a courier; raise `PeerError` for one that is damaged or not ours."""
        if stick is not None:
            await self._usable(stick)
        carried = Carried.decode(self._open(data))
        truck = await self._truck(carried.truck)
        new = known = refused = 0
        for encoded in carried.uploads:
            upload = Upload.decode(encoded)
            if upload.epoch is None:
                raise MalformedError("what a courier brings names its epoch")
            before = await self._fleet.epoch_state(truck.name, upload.epoch)
            ack, _ = await self._ingest.upload(truck, LINK, upload)
            was_refused = {sequence for sequence, _ in ack.refused}
            for sequence in _sequences(upload):
                if sequence in was_refused or not ack.covers(sequence):
                    refused += 1
                elif before is not None and before.covers(sequence):
                    known += 1
                else:
                    new += 1
        if stick is not None:
            await self._fleet.note_import(stick, self._now_ms())
        detail = {"new": new, "known": known, "refused": refused, "stick": stick.hex() if stick else None}
        await self._fleet.audit(note(by, "stick.carried", truck.name, self._now_ms(), detail))
        log.info("stick.taken", truck=truck.name, new=new, known=known, refused=refused)
        return Taken(truck.name, new, known, refused)

    def _open(self, data: bytes) -> bytes:
        if len(data) < 2 or data[0] != _FILE_VERSION:
            raise MalformedError("this is no file that a truck gives a courier")
        key = self._keys.keys.exchange_keys.get(data[1])
        if key is None:
            raise UntrustedError(f"it is encrypted to the gateway's key {data[1]}, which is not here")
        return open_sealed(key.private, data[2:], INFO_UP)

    async def _usable(self, stick: bytes) -> StickRecord:
        record = await self._fleet.stick(stick)
        if record is None:
            raise UntrustedError("no stick of this id was made here")
        if record.revoked_ms is not None:
            raise UntrustedError("this stick was revoked: nothing is taken from it or written to it; format it")
        return record

    async def _truck(self, name: str) -> TruckRecord:
        truck = await self._fleet.truck(name)
        if truck is None:
            raise UntrustedError(f"there is no truck {name}: see digitruck trucks")
        if truck.revoked_ms is not None:
            raise UntrustedError(f"{name} is revoked")
        return truck

    async def _truck_plan(self, truck: TruckRecord) -> TruckPlan:
        await self._documents.refresh(truck)
        desired = await self._fleet.desired(truck.name)
        if desired is None:
            raise PeerError(f"nothing is desired of {truck.name} yet: run `digitruck trust push` first")
        entries = parse_document(desired.signed, Desired)[0].entries
        held = await self._fleet.holdings(truck.name)
        return TruckPlan(
            truck=truck.name,
            desired=desired.signed,
            documents=tuple(each.digest for each in entries),
            manifests=tuple(each.digest for each in entries if each.document is DocumentKind.MANIFEST),
            held=tuple(
                each.digest
                for each in held
                if each.document is DocumentKind.MANIFEST and each.outcome is Outcome.APPLIED
            ),
        )

    async def _committed(self, truck: str) -> tuple[StickEpoch, ...]:
        states = await self._fleet.epochs_of(truck, STICK_EPOCHS_MAX)
        found = []
        for each in states:
            newest = await self._fleet.newest_parcel(truck, each.epoch)
            proof = None if newest is None else (newest[0], cose.digest(newest[1]))
            found.append(StickEpoch(each.epoch, each.cumulative, each.ranges[:RANGES_IN_ACK_MAX], proof))
        return tuple(found)


def _wrap(truck: TruckRecord, stick: bytes, key: bytes) -> bytes:
    return seal(credential_key(truck.credential), key, key_info(stick, truck.name))


def _sequences(upload: Upload) -> Iterable[int]:
    for sealed in upload.parcels:
        try:
            yield unseal(sealed).sequence
        except PeerError:
            yield 0  # counted as refused

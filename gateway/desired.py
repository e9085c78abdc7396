"""Desired states: for each truck the newest documents that are for it, signed with the gateway's freshness key.

One is only made anew when its entries change, when it is half-way to its expiry, or when another key signs from now on.
Documents that only revoked keys signed are not named any more: every truck would refuse them, one receipt each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from gateway.rollouts import Rollouts
from protocol import cose
from protocol.documents import Addressee, Desired, DesiredEntry, parse_document, sign_document
from protocol.errors import PeerError
from protocol.numbers import DocumentKind
from protocol.trust import TrustedSet
from store.fleet.fleet import FleetStore
from store.fleet.records import DocumentRecord, TruckRecord

log = structlog.get_logger("gateway.desired")

# Longer than the longest outage that a truck is meant to survive without losing what it has.
DESIRED_LIFETIME_S = 400 * 86_400
# One that a truck has not reported by then is signed anew, with a version of today: a restored gateway whose clock was
# slow may have signed it with one below what the truck had trusted before.
_UNREPORTED_S = 86_400


class DesiredStates:
    """Keeps every truck's desired state."""

    def __init__(self, fleet: FleetStore, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._now_ms = now_ms
        self.rollouts = Rollouts(fleet, now_ms=now_ms, refresh=self._refresh_named)
        # Two at once could get one version.
        self._signing = asyncio.Lock()
        self._trust: TrustedSet | None = None
        self._key: cose.SigningKey | None = None
        # By digest and group: whether a document is signed by keys that count.
        self._signed: dict[tuple[bytes, str], bool] = {}
        self._withheld: dict[str, frozenset[bytes]] = {}

    @property
    def unsigned(self) -> frozenset[bytes]:
        """The digests of documents that trucks should have but that only revoked keys signed."""
        return frozenset(digest for each in self._withheld.values() for digest in each)

    def follow(self, trust: TrustedSet | None, key: cose.SigningKey) -> None:
        """Go by another root or role table, and sign with this key from now on."""
        self._trust, self._key = trust, key
        self._signed.clear()

    async def refresh_all(self, to: Addressee | None = None) -> None:
        """Make every desired state anew that has changed, or only those of the trucks that are addressed."""
        after: str | None = None
        while page := await self._fleet.trucks(after, 500):
            for truck in page:
                if truck.revoked_ms is None and (to is None or to.includes(truck.name, truck.group)):
                    await self.refresh(truck)
            after = page[-1].name

    async def refresh(self, truck: TruckRecord) -> None:
        """Make the truck's desired state anew if what it should have has changed."""
        async with self._signing:
            await self._refresh(truck)

    async def _refresh_named(self, names: Sequence[str]) -> None:
        for name in names:
            truck = await self._fleet.truck(name)
            if truck is not None and truck.revoked_ms is None:
                await self.refresh(truck)

    async def _refresh(self, truck: TruckRecord) -> None:
        key = self._key
        if key is None:
            return
        entries, revoked = await self._entries(truck), await self._fleet.revoked_sticks(self._now_ms())
        current = await self._fleet.desired(truck.name)
        version, now_s = 1, self._now_ms() // 1000
        if current is not None:
            old, parts = parse_document(current.signed, Desired)
            is_signed = parts.signatures[0].key_id == cose.key_id(key.public)
            same = (old.entries, old.revoked_sticks) == (entries, revoked)
            is_reported = truck.desired_reported == current.digest
            lifetime_s = DESIRED_LIFETIME_S // 2 if is_reported else _UNREPORTED_S
            if is_signed and same and now_s < old.issued_s + lifetime_s:
                return
            version = old.version + 1
        desired = Desired(
            document=DocumentKind.DESIRED,
            version=max(version, now_s),
            issued_s=now_s,
            expires_s=now_s + DESIRED_LIFETIME_S,
            truck=truck.name,
            entries=entries,
            revoked_sticks=revoked,
        )
        signed = sign_document(desired, [key])
        await self._fleet.set_desired(truck.name, cose.digest(signed), signed, self._now_ms())

    async def _entries(self, truck: TruckRecord) -> tuple[DesiredEntry, ...]:
        records: list[DocumentRecord] = []
        roots = sorted(await self._fleet.documents(kind=DocumentKind.ROOT), key=lambda each: each.version)
        entries = [DesiredEntry(DocumentKind.ROOT, each.version, each.digest, each.size) for each in roots]
        delegation = await self._fleet.newest_document(DocumentKind.DELEGATION)
        config = await self._fleet.newest_config(truck.name, truck.group)
        records += [each for each in (delegation, config) if each is not None]
        for record in await self.rollouts.counting(truck):
            rollout = self.rollouts.read(record)
            records.append(record)
            if rollout.manifest is not None:
                manifest = await self._fleet.document(rollout.manifest)
                if manifest is not None:
                    records.append(manifest)
        signed = [each for each in records if self._is_signed(each, truck)]
        self._withheld.pop(truck.name, None)
        if len(signed) < len(records):
            self._withheld[truck.name] = frozenset(each.digest for each in records if each not in signed)
        entries += [DesiredEntry(each.kind, each.version, each.digest, len(each.signed)) for each in signed]
        return tuple(entries)

    def _is_signed(self, record: DocumentRecord, truck: TruckRecord) -> bool:
        if self._trust is None or record.kind is DocumentKind.DELEGATION:
            return True
        known = self._signed.get((record.digest, truck.group))
        if known is None:
            known = self._signed[record.digest, truck.group] = self._check(self._trust, record, truck)
        return known

    def _check(self, trust: TrustedSet, record: DocumentRecord, truck: TruckRecord) -> bool:
        try:
            # As a truck of this group sees it: an operator of another one may not sign for it.
            trust.of_truck(truck.name, truck.group).check_signers(record.signed, record.kind)
        except PeerError as error:
            kind = record.kind.name.lower()
            log.warning("document.no_longer_signed", kind=kind, name=record.name, reason=str(error))
            return False
        return True

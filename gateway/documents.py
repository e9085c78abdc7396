"""Documents on the gateway: checked before they are kept, then told to the trucks they are for.

The gateway verifies what people push so that a mistake is refused where it was made, but a truck believes only its own
check. The first root is taken when an administrator pushes it and none is there; every later one must follow it.
The desired state of a truck is signed with the gateway's freshness key, and only made anew when its entries change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from protocol import cose
from protocol.documents import (
    Addressee,
    Config,
    Delegation,
    Desired,
    DesiredEntry,
    Document,
    Manifest,
    Rollout,
    Root,
    parse_document,
    read_document,
    sign_document,
)
from protocol.errors import PeerError, RollbackError, UntrustedError
from protocol.numbers import DocumentKind
from protocol.trust import TrustedSet, version_name
from store.fleet.fleet import FleetStore
from store.fleet.records import BundleRecord, DocumentRecord, TruckRecord

log = structlog.get_logger("gateway.documents")

# Longer than the longest outage that a truck is meant to survive without losing what it has.
DESIRED_LIFETIME_S = 400 * 86_400
_LOOK_AGAIN_S = 86_400.0


class Documents:
    """Accepts documents and keeps every truck's desired state."""

    def __init__(self, fleet: FleetStore, freshness_key: cose.SigningKey, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._key = freshness_key
        self._now_ms = now_ms
        self._trust: TrustedSet | None = None
        # Two documents at once could both be the first root, and two desired states could get one version.
        self._accepting = asyncio.Lock()
        self._signing = asyncio.Lock()
        self._root_digest: bytes | None = None

    @property
    def root_digest(self) -> bytes | None:
        """The digest of the newest trusted root, which an enrolment code pins; None before `digitruck trust push`."""
        return self._root_digest

    async def run(self) -> None:
        """Look at every truck's desired state once a day, and at the start: a crash may have come before that was due.

        One that is half-way to its expiry is signed anew, so that a truck whose desired state never changes keeps one.
        """
        while True:
            await self._refresh_all(None)
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def load(self) -> None:
        """Rebuild the trusted set from the documents in the database."""
        self._trust = None
        now_s = self._now_ms() // 1000
        newest = await self._fleet.newest_document(DocumentKind.ROOT)
        if newest is None:
            return
        # Every stored root was verified as the successor of the one before when it was accepted.
        self._trust = TrustedSet(newest.signed)
        self._root_digest = newest.digest
        delegation = await self._fleet.newest_document(DocumentKind.DELEGATION)
        if delegation is not None:
            try:
                self._trust.accept_delegation(delegation.signed, now_s)
            except PeerError as error:
                log.error("delegation.unusable", reason=str(error))
                return
            await self._revoke()

    async def _revoke(self) -> None:
        """Cut off the trucks that the delegation revokes: at once, and again after a restore from an older backup."""
        if self._trust is None or self._trust.delegation is None:
            return
        for truck in self._trust.delegation.revoked:
            if await self._fleet.revoke_truck(truck, self._now_ms()):
                log.warning("truck.revoked", truck=truck)

    async def accept(self, signed: bytes, actor: str) -> DocumentRecord:
        """Verify and keep a document that a person pushed; raise `PeerError` with the check that failed.

        The same bytes again give the same record: a publisher's script may repeat itself.
        """
        async with self._accepting:
            return await self._accept(signed, actor)

    async def _accept(self, signed: bytes, actor: str) -> DocumentRecord:
        digest = cose.digest(signed)
        known = await self._fleet.document(digest)
        if known is not None:
            # It may be pushed again because the first answer never came: then not everybody may have been told.
            await self._refresh_affected(read_document(cose.parse(signed).payload))
            return known
        parts = cose.parse(signed)
        document = read_document(parts.payload)
        await self._check(document, signed)
        record = self._record(document, signed, actor)
        bundle = self._bundle(document, digest, actor) if isinstance(document, Manifest) else None
        await self._fleet.put_document(record, bundle)
        if isinstance(document, Root | Delegation):
            await self.load()
        log.info("document.accepted", kind=document.kind.name.lower(), version=document.version, actor=actor)
        await self._refresh_affected(document)
        return record

    async def _check(self, document: Document, signed: bytes) -> None:
        now_s = self._now_ms() // 1000
        if isinstance(document, Desired):
            raise UntrustedError("a desired state is signed by the gateway itself, never pushed")
        if self._trust is None:
            if not isinstance(document, Root):
                raise UntrustedError("this gateway has no root yet: run `digitruck trust push` first")
            TrustedSet(signed)
            return
        if not isinstance(document, Root):
            same = await self._fleet.newest_document(document.kind, version_name(document))
            if same is not None and document.kind is not DocumentKind.MANIFEST and document.version <= same.version:
                raise RollbackError(f"version {same.version} is here already: sign version {same.version + 1}")
            if isinstance(document, Rollout) and document.manifest is not None:
                await self._check_rollout(document)
        # A fresh set each time: a document that fails must leave nothing behind.
        scratch = TrustedSet(await self._newest_root())
        delegation = await self._fleet.newest_document(DocumentKind.DELEGATION)
        if delegation is not None and not isinstance(document, Delegation | Root):
            scratch.accept_delegation(delegation.signed, now_s)
        scratch.accept(signed, document.kind, now_s)

    async def _check_rollout(self, rollout: Rollout) -> None:
        bundle = await self._fleet.bundle_of_manifest(rollout.manifest or b"")
        if bundle is None:
            raise UntrustedError(
                "the rollout names a manifest that was not pushed: `digitruck bundle push` comes first"
            )
        if bundle.name != rollout.bundle:
            raise UntrustedError(f"the rollout is for {rollout.bundle}, the manifest that it names is {bundle.name}'s")

    async def _newest_root(self) -> bytes:
        newest = await self._fleet.newest_document(DocumentKind.ROOT)
        if newest is None:
            raise UntrustedError("this gateway has no root yet: run `digitruck trust push` first")
        return newest.signed

    def _record(self, document: Document, signed: bytes, actor: str) -> DocumentRecord:
        to = document.addressee if isinstance(document, Config | Rollout) else None
        bundle = document.name if isinstance(document, Manifest) else None
        return DocumentRecord(
            digest=cose.digest(signed),
            kind=document.kind,
            version=document.version,
            name=version_name(document),
            signed=signed,
            received_ms=self._now_ms(),
            put_by=actor,
            bundle=document.bundle if isinstance(document, Rollout) else bundle,
            group=to.group if to is not None else None,
            trucks=to.trucks if to is not None else (),
            issued_s=document.issued_s,
            expires_s=document.expires_s,
        )

    def _bundle(self, manifest: Manifest, digest: bytes, actor: str) -> BundleRecord:
        return BundleRecord(
            name=manifest.name,
            label=manifest.label,
            version=manifest.version,
            manifest=digest,
            content=manifest.content,
            title=manifest.title,
            files=len(manifest.files),
            size=sum(file.size for file in manifest.files),
            received_ms=self._now_ms(),
            put_by=actor,
        )

    async def _refresh_affected(self, document: Document) -> None:
        if isinstance(document, Manifest):
            return
        await self._refresh_all(document.addressee if isinstance(document, Config | Rollout) else None)

    async def _refresh_all(self, to: Addressee | None) -> None:
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

    async def _refresh(self, truck: TruckRecord) -> None:
        entries = await self._entries(truck)
        current = await self._fleet.desired(truck.name)
        version = 1
        if current is not None:
            old, _ = parse_document(current.signed, Desired)
            if old.entries == entries and self._now_ms() // 1000 < old.issued_s + DESIRED_LIFETIME_S // 2:
                return
            version = old.version + 1
        now_ms = self._now_ms()
        desired = Desired(
            document=DocumentKind.DESIRED,
            version=max(version, now_ms // 1000),
            issued_s=now_ms // 1000,
            expires_s=now_ms // 1000 + DESIRED_LIFETIME_S,
            truck=truck.name,
            entries=entries,
        )
        signed = sign_document(desired, [self._key])
        await self._fleet.set_desired(truck.name, cose.digest(signed), signed, now_ms)

    async def _entries(self, truck: TruckRecord) -> tuple[DesiredEntry, ...]:
        records: list[DocumentRecord] = []
        roots = sorted(await self._fleet.documents(kind=DocumentKind.ROOT), key=lambda each: each.version)
        entries = [DesiredEntry(DocumentKind.ROOT, each.version, each.digest, each.size) for each in roots]
        delegation = await self._fleet.newest_document(DocumentKind.DELEGATION)
        config = await self._fleet.newest_config(truck.name, truck.group)
        records += [each for each in (delegation, config) if each is not None]
        for record in await self._fleet.rollouts_for(truck.name, truck.group):
            rollout, _ = parse_document(record.signed, Rollout)
            records.append(record)
            if rollout.manifest is not None:
                manifest = await self._fleet.document(rollout.manifest)
                if manifest is not None:
                    records.append(manifest)
        entries += [DesiredEntry(each.kind, each.version, each.digest, len(each.signed)) for each in records]
        return tuple(entries)

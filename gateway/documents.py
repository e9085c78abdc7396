"""Documents on the gateway: checked before they are kept, then told to the trucks they are for (`gateway.desired`).

The gateway verifies what people push so that a mistake is refused where it was made, but a truck believes only its own
check. The first root is taken when an administrator pushes it and none is there; every later one must follow it. Roots
and role tables are also taken from trucks: after a restore they know newer ones than the backup has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gateway.desired import DesiredStates
from gateway.pools import check_pools
from gateway.rollouts import Rollouts
from protocol import cose
from protocol.documents import Config, Delegation, Desired, Document, Manifest, Rollout, Root, Stick, read_document
from protocol.errors import PeerError, RollbackError, UntrustedError
from protocol.numbers import DocumentKind
from protocol.trust import HighestKey, Trusted, TrustedSet, version_name
from store.fleet.audit import note
from store.fleet.errors import DocumentConflictError
from store.fleet.fleet import FleetStore
from store.fleet.records import BundleRecord, Change, DocumentRecord, TruckRecord

log = structlog.get_logger("gateway.documents")

_LOOK_AGAIN_S = 86_400.0
_CLAIMS_MAX = 16
_SOON_S = 60 * 86_400
_RESTORED, _CONFIRMED = "gateway.restored", "trust.confirmed"
_UNCONFIRMED = (
    "this gateway was restored and does not know what was revoked since the backup: nobody enrols and nothing new is "
    "rolled out until who has the newest trust documents runs digitruck trust push"
)
KeyFor = Callable[[Root | None], cose.SigningKey]


@dataclass(frozen=True, slots=True)
class Claim:
    """A truck has a newer root or role table than the gateway, which could not take it: `reason` says why."""

    truck: str
    kind: DocumentKind
    version: int
    reason: str

    def text(self) -> str:
        """Return it as a warning with the next step."""
        what = f"{self.kind.name.lower()} {self.version}"
        return f"{self.truck} knows {what}, which is not here ({self.reason}): digitruck trust push from who has it"


class Documents:
    """Accepts documents, and has every truck's desired state follow."""

    def __init__(self, fleet: FleetStore, key_for: KeyFor, *, now_ms: Callable[[], int]) -> None:
        """`key_for(root)` gives the freshness key that a root makes the one to sign with."""
        self._fleet = fleet
        self._key_for = key_for
        self._now_ms = now_ms
        self._trust: TrustedSet | None = None
        self._desired = DesiredStates(fleet, now_ms=now_ms)
        # Two documents at once could both be the first root.
        self._accepting = asyncio.Lock()
        self._root_digest: bytes | None = None
        self._claims: dict[tuple[str, DocumentKind], Claim] = {}
        self._restored_ms: int | None = None

    @property
    def rollouts(self) -> Rollouts:
        """What brings rollouts on."""
        return self._desired.rollouts

    @property
    def root_digest(self) -> bytes | None:
        """The digest of the newest trusted root, which an enrolment code pins; None before `digitruck trust push`."""
        return self._root_digest

    @property
    def root(self) -> Root | None:
        """The newest trusted root."""
        return None if self._trust is None else self._trust.root

    @property
    def unsigned(self) -> frozenset[bytes]:
        """The digests of documents that trucks should have but that only revoked keys signed."""
        return self._desired.unsigned

    def warnings(self) -> list[str]:
        """Return what is wrong with trust here, each with the next step."""
        if self._trust is None:
            return ["there is no root yet: digitruck trust init, then trust push"]
        found = []
        newest = {kind: seen.version for (kind, _), seen in self._trust.highest.items()}
        self._claims = {key: each for key, each in self._claims.items() if each.version > newest.get(each.kind, 0)}
        found += [each.text() for each in self._claims.values()]
        root, table = self._trust.root, self._trust.delegation
        if self._restored_ms is not None:
            found.append(_UNCONFIRMED)
        if self._key_for(root).public not in root.gateway.keys:
            found.append("the root does not name this gateway's freshness key: digitruck trust rotate gateway")
        if table is None:
            found.append("no role table of this root is here, or it has expired: digitruck trust delegate or renew")
        soon_s = self._now_ms() // 1000 + _SOON_S
        for each in (root, table):
            if each is not None and each.expires_s < soon_s:
                found.append(f"{each.kind.name.lower()} {each.version} expires soon or has: digitruck trust renew")
        return found

    def check_confirmed(self) -> None:
        """Raise `UntrustedError` after a restore that left unknown what was revoked, until somebody pushed trust."""
        if self._restored_ms is not None and self._trust is not None:
            raise UntrustedError(_UNCONFIRMED)

    def is_revoked(self, truck: str) -> bool:
        """Return whether the role table revokes a truck of this name: no code lets it in, whoever made it."""
        table = None if self._trust is None else self._trust.delegation
        return table is not None and truck in table.revoked

    async def run(self) -> None:
        """Look at every truck's desired state once a day, and at the start: a crash may have come before that was due.

        One that is half-way to its expiry is signed anew, so that a truck whose desired state never changes keeps one.
        """
        while True:
            await self._desired.refresh_all()
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def load(self) -> None:
        """Rebuild the trusted set from the documents in the database."""
        trust: TrustedSet | None = None
        newest = await self._fleet.newest_document(DocumentKind.ROOT)
        if newest is not None:
            # Every stored root was verified as the successor of the one before when it was accepted.
            trust = TrustedSet(newest.signed)
            self._root_digest = newest.digest
            delegation = await self._fleet.newest_document(DocumentKind.DELEGATION)
            if delegation is not None:
                try:
                    trust.accept_delegation(delegation.signed, self._now_ms() // 1000)
                except PeerError as error:
                    log.error("delegation.unusable", reason=str(error))
        last = await self._fleet.newest_audit(_RESTORED, _CONFIRMED)
        is_open = last is not None and last.action == _RESTORED and json.loads(last.detail_json).get("unconfirmed")
        self._restored_ms = last.at_ms if last is not None and is_open else None
        self._trust = trust
        self._desired.follow(trust, self._key_for(self.root))
        await self._revoke()

    async def changed(self, change: Change) -> None:
        """Hear of a change: another process on this database may have taken a root or a role table."""
        if change.kind not in ("document", "gap"):
            return
        known = {} if self._trust is None else self._trust.highest
        for kind in (DocumentKind.ROOT, DocumentKind.DELEGATION):
            newest = await self._fleet.newest_document(kind)
            if newest is not None and known.get((kind, "")) != Trusted(newest.version, newest.digest):
                await self.load()
                return

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
            record = await self._accept(signed, actor)
            if record.kind is DocumentKind.DELEGATION and self._restored_ms is not None and "/" not in actor:
                # A person who holds the newest has spoken: what this gateway knows of revocations counts again.
                await self._fleet.audit(note(actor, _CONFIRMED, "", self._now_ms(), {"version": record.version}))
                self._restored_ms = None
            return record

    async def accept_from_truck(self, signed: bytes, truck: str) -> None:
        """Verify and keep a root or role table that a truck has and this gateway lost; raise `PeerError`."""
        document = read_document(cose.parse(signed).payload)
        if not isinstance(document, Root | Delegation):
            raise UntrustedError("a truck tells roots and role tables, nothing else")
        try:
            await self.accept(signed, f"truck/{truck}")
        except (PeerError, DocumentConflictError) as error:
            claim = Claim(truck, document.kind, document.version, str(error))
            if len(self._claims) < _CLAIMS_MAX or (truck, document.kind) in self._claims:
                self._claims[truck, document.kind] = claim
            log.error("trust.behind", truck=truck, document=document.kind.name.lower(), version=document.version)
            raise
        log.warning("trust.learnt", truck=truck, document=document.kind.name.lower(), version=document.version)

    async def _accept(self, signed: bytes, actor: str) -> DocumentRecord:
        digest = cose.digest(signed)
        known = await self._fleet.document(digest)
        if known is not None:
            # It may be pushed again because the first answer never came: then not everybody may have been told.
            await self._refresh_affected(read_document(cose.parse(signed).payload), digest)
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
        await self._refresh_affected(document, digest)
        return record

    async def _check(self, document: Document, signed: bytes) -> None:
        now_s = self._now_ms() // 1000
        if isinstance(document, Desired | Stick):
            raise UntrustedError("desired states and sticks are signed by the gateway itself, never pushed")
        if self._trust is None:
            if not isinstance(document, Root):
                raise UntrustedError("this gateway has no root yet: run `digitruck trust push` first")
            TrustedSet(signed)
            return
        if not isinstance(document, Root | Delegation):
            self.check_confirmed()
        highest: dict[HighestKey, Trusted] = {}
        if not isinstance(document, Root):
            same = await self._fleet.newest_document(document.kind, version_name(document))
            if same is not None and document.kind is not DocumentKind.MANIFEST:
                if document.version <= same.version:
                    raise RollbackError(f"version {same.version} is here already: sign version {same.version + 1}")
                highest[document.kind, version_name(document)] = Trusted(same.version, same.digest)
            if isinstance(document, Rollout) and document.manifest is not None:
                await self._check_rollout(document)
        for truck, group in await self._readers(document):
            # A fresh set each time: a document that fails must leave nothing behind.
            scratch = TrustedSet(await self._newest_root(), truck=truck, group=group, highest=highest)
            delegation = await self._fleet.newest_document(DocumentKind.DELEGATION)
            if delegation is not None and not isinstance(document, Delegation | Root):
                scratch.accept_delegation(delegation.signed, now_s)
            scratch.accept(signed, document.kind, now_s)
        if isinstance(document, Config):
            await check_pools(self._fleet, document)

    async def _readers(self, document: Document) -> list[tuple[str | None, str]]:
        """Return whose eyes a document is checked with: for trucks by name one of each of their groups, else nobody's.

        Otherwise an operator of one group could use up the versions of another group's truck here.
        """
        if not isinstance(document, Config | Rollout) or not document.addressee.trucks:
            return [(None, "")]
        groups: dict[str, str] = {}
        for name in document.addressee.trucks:
            truck = await self._fleet.truck(name)
            # Of a truck that is not there yet nobody knows the group: only an operator of all may sign for it.
            groups.setdefault("*" if truck is None else truck.group, name)
        return [(name, group) for group, name in groups.items()]

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

    async def _refresh_affected(self, document: Document, digest: bytes) -> None:
        if isinstance(document, Rollout):
            await self.rollouts.advance(digest)
        if not isinstance(document, Manifest):
            await self._desired.refresh_all(document.addressee if isinstance(document, Config | Rollout) else None)

    async def refresh_all(self) -> None:
        """Make every truck's desired state anew that has changed."""
        await self._desired.refresh_all()

    async def refresh(self, truck: TruckRecord) -> None:
        """Make the desired state of a truck that has joined."""
        await self.rollouts.admit(truck)
        await self._desired.refresh(truck)

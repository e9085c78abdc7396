"""The downlink: from a desired digest in an acknowledgement to documents that are trusted, applied and receipted.

The truck never polls: an acknowledgement that names another desired state than the last one it reported starts a sync.
Each document is fetched once, verified by the trusted set, and persisted with the versions it raised before anything
acts on it. What is refused is refused with a receipt that says why; the rest goes on. What the gateway names can only
choose among the newest versions that were trusted: naming an older one again, or none, brings nothing back.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from aiocoap.numbers import codes

from edge.believed import Wanted, read_held, read_wanted
from edge.clock import Clock, save_new_floor
from edge.link_errors import LinkDownError, RefusedError, SessionLostError
from edge.uplink import Contact, Uplink
from protocol import cose
from protocol.documents import BYTES_MAX, Delegation, Desired, DesiredEntry, Document, Rollout
from protocol.errors import DigitruckError, MalformedError, PeerError, RollbackError, UntrustedError
from protocol.messages import Receipt
from protocol.numbers import (
    DESIRED_DIGEST_BYTES,
    DOCUMENT_INLINE_BYTES_MAX,
    PATH_DOCUMENT,
    DocumentKind,
    Outcome,
    Precedence,
)
from protocol.trust import TrustedSet, version_name
from store.attempts import Attempts
from store.documents import Documents, TrustedDocument
from store.writer import Writer

log = structlog.get_logger("edge.downlink")

_REQUEST_TIMEOUT_S = 20.0
_RETRY_FIRST_S, _RETRY_MAX_S = 5.0, 600.0
_TRIES_A_LINK = 3
# A desired state that was not believed is asked for again only after a while: each try costs its bytes.
_REFUSED_PAUSE_S = 3_600.0
# A gateway that still names what was reported long ago has heard another report since: of a copy of this truck, or it
# has lost this one with what a restore took away.
_REPORTED_PAUSE_S = 6 * 3_600.0
# What a truck tells a gateway that lost it goes in one datagram; IP may cut it, but not into too many.
_TOLD_BYTES_MAX = 16_384
# A rollout comes before the manifest that it names, a root before all that its keys sign.
_ORDER = {
    each: at
    for at, each in enumerate(
        (
            DocumentKind.ROOT,
            DocumentKind.DELEGATION,
            DocumentKind.CONFIG,
            DocumentKind.ROLLOUT,
            DocumentKind.MANIFEST,
            DocumentKind.DESIRED,
            DocumentKind.STICK,
        )
    )
}

FetchObject = Callable[[bytes, int, Precedence, str], Awaitable[bytes]]


class Downlink:
    """Keeps the truck's documents at the desired state."""

    def __init__(
        self,
        uplink: Uplink,
        trust: TrustedSet,
        documents: Documents,
        writer: Writer,
        clock: Clock,
        *,
        fetch: FetchObject,
        send_receipt: Callable[[Receipt], Awaitable[None]],
        on_wanted: Callable[[Wanted], Awaitable[None]],
        attempts: Attempts | None = None,
    ) -> None:
        """`fetch(digest, size, precedence, cause)` brings a large object; `on_wanted` acts on what is trusted now."""
        self._uplink = uplink
        self._attempts = attempts or Attempts()
        self._trust = trust
        self._documents = documents
        self._writer = writer
        self._clock = clock
        self._fetch = fetch
        self._send_receipt = send_receipt
        self._on_wanted = on_wanted
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._heard: bytes | None = None
        self._reported: bytes | None = None
        self._refused: bytes | None = None
        self._refused_until = self._report_again_at = 0.0
        self._syncing = asyncio.Lock()
        self._taking = False
        self._over_links: asyncio.Task[None] | None = None
        self._elsewhere: Callable[[DesiredEntry], Awaitable[bytes]] | None = None

    async def contact(self, contact: Contact) -> None:
        """Hear an acknowledgement; cheap unless it names a desired state that is new here."""
        self._answered.set()
        desired = contact.ack.desired
        if desired is None:
            return
        if desired in (self._heard, self._reported):
            if desired != self._reported or self._clock.monotonic() < self._report_again_at:
                return
            self._report_again_at = self._clock.monotonic() + _REPORTED_PAUSE_S
        if desired == self._refused and self._clock.monotonic() < self._refused_until:
            return
        self._heard = desired
        self._wake.set()

    async def run(self) -> None:
        """Sync whenever it is asked for, until cancelled."""
        await self._on_wanted(await self.wanted())
        pause_s = _RETRY_FIRST_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._sync()
                pause_s = _RETRY_FIRST_S
            except PeerError as failure:
                # Not believable: last good stays. The acknowledgements go on naming it if it is still desired.
                log.warning("sync.refused", reason=str(failure))
                self._refused, self._heard = self._heard, None
                self._refused_until = self._clock.monotonic() + _REFUSED_PAUSE_S
            except (DigitruckError, OSError) as failure:
                log.info("sync.waits", reason=str(failure))
                await self._nap(pause_s)
                pause_s = min(_RETRY_MAX_S, 2 * pause_s)
                self._wake.set()

    async def _nap(self, seconds: float) -> None:
        """Wait, but not longer than until the gateway is heard again."""
        await asyncio.sleep(_RETRY_FIRST_S)
        self._answered.clear()
        try:
            async with asyncio.timeout(max(0.0, seconds - _RETRY_FIRST_S)):
                await self._answered.wait()
        except TimeoutError:
            return

    async def wanted(self) -> Wanted:
        """Return what the documents that are trusted now ask for."""
        return await self._writer.run(lambda: read_wanted(self._documents, self._trust))

    async def _held(self, digest: bytes) -> TrustedDocument | None:
        return await self._writer.run(lambda: self._documents.by_digest(digest))

    async def _newest(self, held: TrustedDocument) -> TrustedDocument | None:
        return await self._writer.run(lambda: self._documents.current(held.kind, held.name))

    async def take(self, signed: bytes, bring: Callable[[DesiredEntry], Awaitable[bytes]]) -> None:
        """Take a desired state that came by another way than a link, and what it names with `bring`.

        Raises `PeerError` when it is not believed, and what `bring` raises; the rest of it then comes over a link.
        """
        self._taking = True
        if self._over_links is not None:
            self._over_links.cancel()  # it may wait for a link for weeks; it begins anew afterwards
        async with self._syncing:
            self._taking, self._elsewhere = False, bring
            try:
                await self._apply(signed)
            finally:
                self._elsewhere = None

    async def _sync(self) -> None:
        async with self._syncing:
            self._over_links = asyncio.create_task(self._sync_over_links())
            try:
                await self._over_links
            except asyncio.CancelledError:
                if not self._taking:
                    raise
                raise LinkDownError("what a stick brings goes first") from None
            finally:
                self._over_links = None

    async def _sync_over_links(self) -> None:
        await self._apply(await self._get(("desired",)))

    async def _apply(self, signed: bytes) -> None:
        desired = await self._believe_desired(signed)
        refused = 0
        named = await self._manifests_named(desired)
        for entry in sorted(desired.entries, key=lambda each: (_ORDER[each.document], each.version)):
            try:
                await self._take(entry, await self._held(entry.digest), named)
            except PeerError as failure:
                refused += 1
                log.warning("document.refused", kind=entry.document.name.lower(), reason=str(failure))
                await self._receipt(entry.document, entry.digest, Outcome.REJECTED, "", entry.version, str(failure))
            if entry.document is DocumentKind.ROLLOUT:
                named = await self._manifests_named(desired)
        await self._writer.run(lambda: self._forget_manifests(named))
        if self._elsewhere is None:
            await self._tell_what_is_newer(desired)
        digest = cose.digest(signed)
        self._reported = digest[:DESIRED_DIGEST_BYTES]
        self._report_again_at = self._clock.monotonic() + _REPORTED_PAUSE_S
        outcome = Outcome.APPLIED if not refused else Outcome.HELD
        await self._receipt(DocumentKind.DESIRED, digest, outcome, "", desired.version, "")
        await self._on_wanted(await self.wanted())

    async def _believe_desired(self, signed: bytes) -> Desired:
        """Accept a desired state; when the gateway's key is not the one that is known, learn newer roots first."""
        try:
            desired = self._check_desired(signed)
        except PeerError as failure:
            if isinstance(failure, RollbackError) or not await self._learn_roots(signed):
                raise
            desired = self._check_desired(signed)
        await self._persist(desired, signed)
        return desired

    def _check_desired(self, signed: bytes) -> Desired:
        with self._attempts.of(cose.digest(signed)):
            return self._trust.accept_desired(signed, self._clock.at_least_s())

    async def _learn_roots(self, signed: bytes) -> bool:
        """Follow the chain of roots that an unverified desired state names; each must follow the one before."""
        claimed = read_held(signed, Desired)
        if claimed.truck != self._trust.truck:
            return False
        learnt = False
        for entry in sorted(claimed.entries, key=lambda each: each.version):
            if entry.document is DocumentKind.ROOT and entry.version > self._trust.root.version:
                await self._follow(await self._bring(entry))
                learnt = True
        return learnt

    async def _follow(self, signed: bytes) -> None:
        """Take the next root; with gateway keys that it takes away goes what their holder may have told."""
        with self._attempts.of(cose.digest(signed)):
            before, root = self._trust.root, self._trust.check_root(signed)
        freshness_changes = root.gateway != before.gateway
        exchange_changes = root.exchange != before.exchange
        now_s = root.issued_s if freshness_changes or exchange_changes else self._clock.at_least_s()

        def persist() -> None:
            if freshness_changes:
                # Fast-forward recovery: the versions that stolen keys reached are void (TUF 5.3.11).
                self._documents.forget_versions((DocumentKind.DESIRED,))
            if freshness_changes or exchange_changes:
                # And so is the time. It is not earlier than when people signed this root.
                save_new_floor(self._documents.settings, now_s)
            self._documents.put_trusted(root.kind, "", root.version, cose.digest(signed), signed, now_s)

        await self._writer.run(persist)
        self._trust.update_root(signed)
        if freshness_changes or exchange_changes:
            self._clock.begin_anew(now_s)
        if exchange_changes:
            for link in self._uplink.links.values():
                link.end_session()

    async def _tell_what_is_newer(self, desired: Desired) -> None:
        """Send a gateway that lost roots or the role table (it was restored) those that this truck has."""
        for kind in (DocumentKind.ROOT, DocumentKind.DELEGATION):
            named = max((each.version for each in desired.entries if each.document is kind), default=0)
            if kind is DocumentKind.ROOT and not named:
                continue  # no gateway is without a root
            for held in await self._writer.run(partial(self._documents.newer, kind, named)):
                log.warning("gateway.behind", kind=kind.name.lower(), version=held.version, gateway_version=named)
                if len(held.signed) <= _TOLD_BYTES_MAX:
                    try:
                        await self._request(codes.POST, held.signed, ())
                    except RefusedError as refusal:
                        log.warning("document.not_taken", kind=kind.name.lower(), reason=str(refusal))

    async def _manifests_named(self, desired: Desired) -> set[bytes]:
        named = set()
        for entry in desired.entries:
            if entry.document is DocumentKind.ROLLOUT:
                held = await self._held(entry.digest)
                newest = None if held is None else await self._newest(held)
                if newest is not None and (manifest := read_held(newest.signed, Rollout).manifest) is not None:
                    named.add(manifest)
        return named

    async def _take(self, entry: DesiredEntry, held: TrustedDocument | None, named: set[bytes]) -> None:
        if entry.document in (DocumentKind.DESIRED, DocumentKind.STICK):
            raise UntrustedError("a desired state names no other one, and no stick")
        now_s = self._clock.at_least_s()
        if entry.document is DocumentKind.ROOT:
            if entry.version > self._trust.root.version:
                await self._follow(await self._bring(entry))
            return
        if entry.document is DocumentKind.MANIFEST and entry.digest not in named:
            raise UntrustedError("no rollout that is trusted names this manifest")
        if held is not None and entry.document is not DocumentKind.MANIFEST:
            newest = await self._newest(held)
            if newest is not None and newest.version > held.version:
                raise RollbackError(f"version {held.version} is older than version {newest.version}, trusted before")
            return
        signed = held.signed if held is not None else await self._bring(entry)
        with self._attempts.of(entry.digest):
            if entry.document is DocumentKind.MANIFEST:
                document: Document = self._trust.accept_manifest(signed, now_s, named=entry.digest)
            else:
                document = self._trust.accept(signed, entry.document, now_s)
        await self._persist(document, signed)
        if isinstance(document, Delegation):
            await self._receipt(document.kind, entry.digest, Outcome.APPLIED, "", document.version, "")

    async def _bring(self, entry: DesiredEntry) -> bytes:
        if entry.size > BYTES_MAX[entry.document]:
            raise MalformedError(f"a {entry.document.name.lower()} of {entry.size} bytes: it has less")
        if self._elsewhere is not None:
            signed = await self._elsewhere(entry)
        elif entry.size <= DOCUMENT_INLINE_BYTES_MAX:
            query = base64.urlsafe_b64encode(entry.digest).decode().rstrip("=")
            signed = await self._get((query,))
        else:
            signed = await self._fetch(entry.digest, entry.size, Precedence.PRIORITY, "document")
        if cose.digest(signed) != entry.digest:
            raise UntrustedError("other bytes came than the desired state names")
        return signed

    async def _get(self, query: tuple[str, ...]) -> bytes:
        """Get a small document."""
        return await self._request(codes.GET, b"", query)

    async def _request(self, code: codes.Code, payload: bytes, query: tuple[str, ...]) -> bytes:
        """Ask for a document, or tell one, over the best link that may carry it now."""
        last: Exception = LinkDownError("no link may be used now")
        for link in sorted(self._uplink.links.values(), key=lambda each: each.price):
            if not self._uplink.may(link, Precedence.PRIORITY):
                continue
            for _ in range(_TRIES_A_LINK):
                try:
                    answered = await link.request(
                        code,
                        PATH_DOCUMENT,
                        payload,
                        precedence=Precedence.PRIORITY,
                        cause="document",
                        timeout_s=min(_REQUEST_TIMEOUT_S, 3 * (link.rtt_s or 2.0) + 1.0),
                        query=query,
                        answer_bytes=DOCUMENT_INLINE_BYTES_MAX,
                    )
                except (LinkDownError, SessionLostError) as failure:
                    last = failure
                except RefusedError as failure:
                    if not failure.is_passing:
                        raise
                    last = LinkDownError(str(failure))
                else:
                    return answered.payload
        raise last

    async def _persist(self, document: Document, signed: bytes) -> None:
        kind, name, version = document.kind, version_name(document), document.version
        digest = cose.digest(signed)
        if kind is DocumentKind.MANIFEST:
            # Its rollout's version counts, not its own: an operator may go back to an older manifest on purpose.
            name = digest.hex()
        now_s = self._clock.at_least_s()
        await self._writer.run(
            partial(self._documents.put_trusted, kind, name, version, digest, signed, now_s=now_s),
        )

    def _forget_manifests(self, named: set[bytes]) -> None:
        """Drop the manifests that no rollout names any more: there would be more of them with every update."""
        for name in self._documents.names(DocumentKind.MANIFEST):
            if bytes.fromhex(name) not in named:
                self._documents.remove(DocumentKind.MANIFEST, name)

    async def _receipt(
        self, kind: DocumentKind, digest: bytes, outcome: Outcome, name: str, version: int, reason: str
    ) -> None:
        wall_s = self._clock.wall_s()
        receipt = Receipt(
            document=kind,
            digest=digest,
            outcome=outcome,
            name=name,
            version=version,
            reason=reason[:200],
            time_ms=0 if wall_s is None else int(wall_s * 1000),
        )
        await self._send_receipt(receipt)

"""Content on the truck: from a trusted rollout to an active bundle and its receipt.

One bundle after another, most urgent precedence first. What is on the disk already is never fetched; a pack that does
not lead to its manifest is thrown away and asked for once more from nothing, then reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiocoap.numbers import codes

from edge.fetch import Fetch
from edge.installer import Installer
from edge.link import LinkDownError, RefusedError, SessionLostError
from edge.uplink import Uplink
from protocol import cose
from protocol.documents import Manifest, Rollout, parse_document
from protocol.errors import BudgetExceededError, DigitruckError, LocalError, MalformedError
from protocol.messages import PackOffer, PackRequest, Receipt
from protocol.numbers import HELD_MANIFESTS_MAX, PATH_PACK, DocumentKind, Outcome, Precedence
from protocol.pack import wanted_files

log = structlog.get_logger("edge.bundles")

_REQUEST_TIMEOUT_S = 30.0
_RETRY_FIRST_S, _RETRY_MAX_S = 5.0, 900.0
_PACK_BYTES_SPARE = 1 << 20  # a pack is never much longer than what it decodes to


@dataclass(frozen=True, slots=True)
class Job:
    """One rollout to be brought about."""

    rollout: Rollout
    manifest: Manifest | None
    signed: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """What a person may want to know about a download under way."""

    bundle: str
    label: str
    pieces: int
    pieces_left: int
    waiting: str


StartFetch = Callable[[bytes, int, Precedence, str], Awaitable[Fetch]]


class Bundles:
    """Brings the bundles of the truck to what its rollouts say."""

    def __init__(
        self,
        uplink: Uplink,
        installer: Installer,
        *,
        start_fetch: StartFetch,
        send_receipt: Callable[[Receipt], Awaitable[None]],
        wall_ms: Callable[[], int],
    ) -> None:
        """`start_fetch(digest, size, precedence, cause)` opens a resumable download."""
        self._uplink = uplink
        self._installer = installer
        self._start_fetch = start_fetch
        self._send_receipt = send_receipt
        self._wall_ms = wall_ms
        self._jobs: tuple[Job, ...] = ()
        self._wake = asyncio.Event()
        self._fetch: Fetch | None = None
        self._current: Job | None = None
        self._waiting = ""
        self._failed: set[bytes] = set()

    def want(self, rollouts: tuple[Rollout, ...], manifests: dict[bytes, bytes]) -> None:
        """Take what the trusted documents ask for now; it supersedes what was asked before."""
        jobs = []
        for rollout in sorted(rollouts, key=lambda each: (each.precedence, each.bundle)):
            if rollout.manifest is None:
                jobs.append(Job(rollout, None, b""))
            elif rollout.manifest in manifests:
                signed = manifests[rollout.manifest]
                jobs.append(Job(rollout, parse_document(signed, Manifest)[0], signed))
        self._jobs = tuple(jobs)
        self._wake.set()

    def progress(self) -> Progress | None:
        """Return the download under way, or None."""
        if self._current is None or self._current.manifest is None:
            return None
        manifest = self._current.manifest
        pieces, left = (self._fetch.pieces, self._fetch.pieces_left) if self._fetch is not None else (0, 0)
        return Progress(manifest.name, manifest.label, pieces, left, self._waiting)

    async def run(self) -> None:
        """Work until cancelled; a new wish interrupts a download that it supersedes (its pieces stay)."""
        pause_s = _RETRY_FIRST_S
        while True:
            self._wake.clear()
            job = await self._next()
            if job is None:
                await self._wake.wait()
                continue
            self._current = job
            work = asyncio.create_task(self._bring_about(job), name=f"bundle-{job.rollout.bundle}")
            woken = asyncio.create_task(self._wake.wait())
            try:
                await asyncio.wait({work, woken}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done() and job in self._jobs:
                    await asyncio.wait({work})
            finally:
                woken.cancel()
                work.cancel()
                await asyncio.gather(woken, work, return_exceptions=True)
                self._current = self._fetch = None
            failure = None if work.cancelled() else work.exception()
            if failure is None:
                pause_s = _RETRY_FIRST_S
            elif isinstance(failure, LinkDownError | SessionLostError | BudgetExceededError):
                self._waiting = str(failure)
                log.info("content.waits", bundle=job.rollout.bundle, reason=str(failure))
                await self._nap(pause_s)
                pause_s = min(_RETRY_MAX_S, 2 * pause_s)
            elif isinstance(failure, DigitruckError):
                await self._reject(job, failure)
            else:
                raise failure

    async def _nap(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _next(self) -> Job | None:
        """Return the first job whose bundle is not as it should be."""
        for job in self._jobs:
            if job.signed and cose.digest(job.signed) in self._failed:
                continue
            active = await asyncio.to_thread(self._installer.active, job.rollout.bundle)
            wanted = job.rollout.manifest
            if (active.digest if active is not None else None) != wanted:
                return job
        return None

    async def _bring_about(self, job: Job) -> None:
        if job.manifest is None:
            await asyncio.to_thread(self._installer.deactivate, job.rollout.bundle)
            await self._report(job, Outcome.APPLIED, "taken away")
            return
        digest = cose.digest(job.signed)
        pack, held = await self._pack(job, digest, from_nothing=False)
        try:
            await asyncio.to_thread(self._installer.install, job.manifest, job.signed, pack, assumed=held)
        except MalformedError as failure:
            log.warning("pack.unusable", bundle=job.manifest.name, reason=str(failure))
            pack, held = await self._pack(job, digest, from_nothing=True)
            await asyncio.to_thread(self._installer.install, job.manifest, job.signed, pack, assumed=held)
        await asyncio.to_thread(self._installer.activate, job.manifest.name, digest)
        if self._fetch is not None:
            await self._fetch.forget()
        log.info("bundle.activated", bundle=job.manifest.name, label=job.manifest.label)
        await self._report(job, Outcome.APPLIED, "")

    async def _pack(self, job: Job, digest: bytes, *, from_nothing: bool) -> tuple[Path | None, set[bytes]]:
        """Fetch the pack from what is held to the manifest; return its file and the digests it was made without."""
        manifest = job.manifest
        assert manifest is not None
        installed = () if from_nothing else await asyncio.to_thread(self._installer.installed)
        bases = sorted(installed, key=lambda each: (each.name != manifest.name, not each.active))[:HELD_MANIFESTS_MAX]
        held = {file.digest for each in bases for file in each.manifest.files}
        wanted = wanted_files(manifest, held)
        if not wanted:
            return None, held
        offer = await self._offer(job, PackRequest(digest, tuple(each.digest for each in bases)))
        decoded = sum(file.size for file in wanted)
        if offer.digest is None or not 0 < offer.size <= decoded + _PACK_BYTES_SPARE:
            raise MalformedError(f"the gateway offers a pack of {offer.size} bytes for {decoded} bytes of files")
        self._waiting = ""
        self._fetch = await self._start_fetch(offer.digest, offer.size, Precedence(job.rollout.precedence), "content")
        return await self._fetch.run(), held

    async def _offer(self, job: Job, request: PackRequest) -> PackOffer:
        precedence = Precedence(job.rollout.precedence)
        while True:
            links = [link for link in self._uplink.links.values() if self._uplink.may(link, precedence)]
            if not links:
                raise LinkDownError("no link may carry this content now")
            link = min(links, key=lambda each: each.price)
            try:
                answered = await link.request(
                    codes.FETCH,
                    PATH_PACK,
                    request.encode(),
                    precedence=precedence,
                    cause="content",
                    timeout_s=_REQUEST_TIMEOUT_S,
                )
            except SessionLostError:
                link.session_lost()
                raise
            offer = PackOffer.decode(answered.payload)
            if offer.digest is not None:
                return offer
            self._waiting = "the gateway is making the pack"
            await asyncio.sleep(max(1, min(offer.wait_s, 3600)))

    async def _reject(self, job: Job, failure: DigitruckError) -> None:
        log.error("bundle.rejected", bundle=job.rollout.bundle, reason=str(failure))
        if job.signed:
            self._failed.add(cose.digest(job.signed))
        if isinstance(failure, RefusedError | LocalError | MalformedError):
            await self._report(job, Outcome.REJECTED, str(failure))

    async def _report(self, job: Job, outcome: Outcome, reason: str) -> None:
        manifest = job.manifest
        if manifest is None:
            document, digest, version = DocumentKind.ROLLOUT, bytes(32), job.rollout.version
        else:
            document, digest, version = DocumentKind.MANIFEST, cose.digest(job.signed), manifest.version
        receipt = Receipt(
            document=document,
            digest=digest,
            outcome=outcome,
            name=job.rollout.bundle,
            version=version,
            reason=reason[:200],
            time_ms=self._wall_ms(),
        )
        await self._send_receipt(receipt)

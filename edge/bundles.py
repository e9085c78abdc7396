"""Content on the truck: from a trusted rollout to an active bundle and its receipt.

One bundle after another, most urgent precedence first. What is on the disk already is never fetched, nor what there is
no room for; a pack that does not lead to its manifest is thrown away and asked for once more from nothing, then
reported, as is one that five daemons died of. What failed here is tried again later; what the gateway or the pack is to
blame for, when a new rollout says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from aiocoap.numbers import codes

from edge.fetch import Fetch
from edge.installer import Installed, Installer
from edge.jobs import Job, Progress, first_of, is_here, receipt_of
from edge.knownpacks import KnownPacks
from edge.link import Link
from edge.link_errors import LinkDownError, RefusedError, SessionLostError
from edge.room import ContentPolicy, make_room
from edge.roomless import Roomless
from edge.tries import Mend, install_somehow, mend_nothing
from edge.uplink import Uplink
from edge.zimlibrary import write_library
from protocol import cose
from protocol.documents import Manifest, Rollout, parse_document
from protocol.errors import BudgetExceededError, DigitruckError, LocalError, MalformedError, PeerError
from protocol.messages import PackOffer, PackRequest, Receipt
from protocol.numbers import HELD_MANIFESTS_MAX, PATH_PACK, Outcome, Precedence
from protocol.pack import wanted_files
from protocol.pack.containers import VIEWS
from protocol.pack.decoder import list_held
from protocol.pack.profile import own_profile
from store.attempts import Attempts

log = structlog.get_logger("edge.bundles")

_REQUEST_TIMEOUT_S, _EVER_S = 30.0, float("inf")
_OFFER_TRIES, _OFFER_S = 3, 3.0  # the gateway may think for two seconds before it says when to ask again
_RETRY_FIRST_S, _RETRY_MAX_S = 5.0, 900.0
# A publisher may push what is missing, and a full disk is looked at meanwhile; a pack that lies is not paid for twice.
_LOCAL_TROUBLE_S, _REFUSED_S = 3_600.0, 21_600.0
_INSTALL_S, _INSTALL_BYTES_A_S = 900.0, 500_000  # slower is no disk of a truck's
_HURRY_S = 600.0  # how often a download asks whether its deadline has come nearer
_PACK_BYTES_SPARE = 1 << 20  # a pack is never much longer than what it decodes to
T = TypeVar("T")
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
        monotonic: Callable[[], float],
        attempts: Attempts | None = None,
        known_packs: KnownPacks | None = None,
        fitness: Callable[[Manifest, Path], Awaitable[str]] | None = None,
        mend: Mend = mend_nothing,
    ) -> None:
        """`start_fetch(digest, size, precedence, cause)` opens a resumable download.

        `fitness` looks at what was just activated: a remark for the receipt, or `LocalError`, and it is rolled back.
        """
        self._attempts = attempts or Attempts()
        self._known_packs = known_packs
        self._fitness = fitness
        self._mend = mend
        self.policy = ContentPolicy()
        self._uplink = uplink
        self._installer = installer
        self._start_fetch = start_fetch
        self._send_receipt = send_receipt
        self._wall_ms = wall_ms
        self._monotonic = monotonic
        self._jobs: tuple[Job, ...] = ()
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._fetch: Fetch | None = None
        self._current: Job | None = None
        self._waiting = ""
        self._failed: dict[tuple[str, int, bytes | None], float] = {}  # until when it is not tried again (monotonic)
        self._roomless = Roomless(installer.check_room, monotonic)
        self._told: dict[tuple[str, int, bytes | None], str] = {}
        self._paused = asyncio.Event()
        self._idle = asyncio.Event()

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
        wanted = {job.key for job in jobs}
        self._failed = {key: until for key, until in self._failed.items() if key in wanted}
        self._told = {key: reason for key, reason in self._told.items() if key in wanted}
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
            job = None if self._paused.is_set() else await self._next()
            if job is None or self._paused.is_set():
                self._idle.set()
                await self._nap(self._roomless.look_s, min(self._failed.values(), default=_EVER_S) - self._monotonic())
                continue
            self._idle.clear()
            self._current = job
            failure = await self._work_on(job)
            if failure is None:
                pause_s = _RETRY_FIRST_S
            elif isinstance(failure, LinkDownError | SessionLostError | BudgetExceededError) or (
                isinstance(failure, RefusedError) and failure.is_passing
            ):
                self._current, self._waiting = job, str(failure)
                log.info("content.waits", bundle=job.rollout.bundle, reason=str(failure))
                await self._rest(pause_s)
                self._current, self._waiting = None, ""
                pause_s = min(_RETRY_MAX_S, 2 * pause_s)
            elif isinstance(failure, DigitruckError | OSError):
                await self._reject(job, failure)
            else:
                raise failure

    async def _work_on(self, job: Job) -> BaseException | None:
        """Bring a job about until it is done, fails, or is not wanted any more; return what it failed with."""
        work = asyncio.create_task(self._bring_about(job), name=f"bundle-{job.rollout.bundle}")
        try:
            while not work.done() and job in self._jobs and not self._paused.is_set():
                self._wake.clear()
                if self._fetch is not None:
                    self._fetch.hurry(self._precedence(job))
                woken = asyncio.create_task(self._wake.wait())
                try:
                    await asyncio.wait({work, woken}, timeout=_HURRY_S, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            self._current = self._fetch = None
            self._waiting = ""
        return None if work.cancelled() else work.exception()

    def _precedence(self, job: Job) -> Precedence:
        return Precedence(job.rollout.precedence_at(self._wall_ms() // 1000))

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Leave the disk to a stick for a while; what was begun goes on after that from where it was."""
        self._paused.set()
        self._wake.set()
        try:
            await self._idle.wait()
            yield
        finally:
            self._paused.clear()
            # What failed for want of what is here now is worth another try.
            self._failed.clear()
            self._wake.set()

    def heard(self) -> None:
        """Hear that the gateway answered: what waits for a link need not wait any longer."""
        self._answered.set()

    async def _rest(self, seconds: float) -> None:
        """Wait before a failed try is repeated, but not longer than until the gateway is heard or a new wish comes."""
        await first_of(_RETRY_FIRST_S, self._paused)
        self._answered.clear()
        if seconds > _RETRY_FIRST_S:
            await first_of(seconds - _RETRY_FIRST_S, self._answered, self._wake, self._paused)

    async def _nap(self, *seconds: float) -> None:
        try:
            async with asyncio.timeout(min(seconds) if min(seconds) < _EVER_S else None):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _next(self) -> Job | None:
        """Return the first job whose bundle is not as it should be."""
        await self._thread(self._roomless.release, self._jobs, self._failed)
        now = self._monotonic()
        self._failed = {key: until for key, until in self._failed.items() if until > now}
        installed = await self._thread(self._installer.installed) if self._jobs else ()
        arrived = await self._thread(self._installer.inbox.places) if self._jobs else {}
        # What a stick has brought whole needs no link, and does not wait for what does.
        for job in sorted(self._jobs, key=lambda each: not is_here(each, arrived)):
            held = [each for each in installed if each.name == job.rollout.bundle]
            active = next((each.digest for each in held if each.active), None)
            if active is not None and await self._thread(self._installer.on_trial, job.rollout.bundle) == active:
                return job  # the daemon died before it was known to be fit
            if job.rollout.manifest is not None and await self._thread(
                self._installer.is_unfit, job.rollout.bundle, job.rollout.manifest, job.rollout.version
            ):
                continue
            if active == job.rollout.manifest and not (job.rollout.manifest is None and held):
                if active is not None:
                    # Nothing is sent if it was said before; a power cut may have come in between.
                    await self._report(job, Outcome.APPLIED, "")
            elif job.key not in self._failed:
                return job
        return None

    async def _thread(self, work: Callable[..., T], *arguments: object, **named: object) -> T:
        """Run what blocks in a thread; when cancelled, wait for its end: two of them must not meet on the disk."""
        running = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            raise

    async def _bring_about(self, job: Job) -> None:
        if job.manifest is None:
            await self._thread(self._installer.deactivate, job.rollout.bundle)
            await self._thread(self._show_library)
            await self._report(job, Outcome.APPLIED, "taken away")
            return
        if job.manifest.name != job.rollout.bundle:
            # Installed under its own name it would push out that bundle, and this one would stay wanted for ever.
            raise MalformedError(f"the rollout of {job.rollout.bundle} names a manifest of {job.manifest.name}")
        digest = cose.digest(job.signed)
        # Before anything is paid for.
        for name in await self._thread(make_room, self._installer, job.manifest, self.policy):
            if (evicted := next((each for each in self._jobs if each.rollout.bundle == name), None)) is not None:
                await self._report(evicted, Outcome.HELD, f"evicted: {job.manifest.name} needs its room")
        await install_somehow(partial(self._install, job, job.manifest, digest), self._mend, job.manifest.name)
        await self._thread(self._installer.try_out, job.manifest.name, digest)
        log.info("bundle.activated", bundle=job.manifest.name, label=job.manifest.label)
        await self._prove(job, job.manifest, digest)

    async def _prove(self, job: Job, manifest: Manifest, digest: bytes) -> None:
        """Keep what was activated if it is fit, else go back to the last good version, and say so."""
        path = self._installer.active_folder(manifest.name)
        try:
            remark = "" if self._fitness is None or path is None else await self._fitness(manifest, path)
        except LocalError as unfit:
            before = await self._thread(self._installer.roll_back, manifest.name, digest, job.rollout.version)
            log.error("bundle.rolled_back", bundle=manifest.name, to=before, reason=str(unfit))
            back = f"back to {before}" if before is not None else "there was none before"
            await self._report(job, Outcome.ROLLED_BACK, f"{unfit}; {back}")
        else:
            await self._thread(self._installer.keep, manifest.name)
            await self._report(job, Outcome.APPLIED, remark)
        await self._thread(self._show_library)

    def _show_library(self) -> None:
        write_library(self._installer.root, self._installer.installed())

    async def _install(self, job: Job, manifest: Manifest, digest: bytes, *, from_nothing: bool) -> None:
        pack, held = await self._pack(job, digest, from_nothing=from_nothing)
        try:
            # The pack counts, not the manifest: one that kills whoever unpacks it leaves another try, from nothing.
            packed = digest if self._fetch is None else self._fetch.staging.digest
            size = sum(file.size for file in manifest.files)
            with self._attempts.of(packed, within_s=_INSTALL_S + size / _INSTALL_BYTES_A_S):
                await self._thread(self._installer.install, manifest, job.signed, pack, assumed=held)
        except PeerError:
            await self._drop_pack()
            await self._forget(digest)
            raise
        await self._drop_pack()
        await self._forget(digest)

    async def _drop_pack(self) -> None:
        if self._fetch is not None:
            await self._fetch.discard()
            self._fetch = None

    async def _pack(self, job: Job, digest: bytes, *, from_nothing: bool) -> tuple[Path | None, Sequence[bytes]]:
        """Fetch the pack from what is held to the manifest; return its file and the digests it was made without."""
        manifest = job.manifest
        assert manifest is not None
        installed = () if from_nothing else await self._thread(self._installer.installed)
        bases = sorted(installed, key=lambda each: (each.name != manifest.name, not each.active))[:HELD_MANIFESTS_MAX]
        held = list_held([each.manifest.files for each in bases])
        # A stick may have brought all that is wanted; a pack stands on whole bundles alone.
        arrived = (*held, *await self._thread(self._installer.inbox.places))
        if not wanted_files(manifest, arrived):
            return None, arrived
        wanted = wanted_files(manifest, held)
        if not from_nothing and (known := await self._known_pack(job, digest, installed)) is not None:
            return known
        profile = (await self._thread(own_profile)).encode()
        offer = await self._offer(job, PackRequest(digest, tuple(each.digest for each in bases), profile, VIEWS))
        decoded = sum(file.size for file in wanted)
        if offer.digest is None or not 0 < offer.size <= decoded + _PACK_BYTES_SPARE:
            raise MalformedError(f"the gateway offers a pack of {offer.size} bytes for {decoded} bytes of files")
        self._waiting = ""
        self._fetch = await self._start_fetch(offer.digest, offer.size, self._precedence(job), "content")
        self._fetch.deadline_s = job.rollout.deadline_s
        return await self._fetch.run(), held

    async def _known_pack(
        self, job: Job, digest: bytes, installed: Sequence[Installed]
    ) -> tuple[Path, Sequence[bytes]] | None:
        """Fetch what is missing of a pack that a stick brought in part or whole; None: there is none."""
        known = None if self._known_packs is None else await self._known_packs.recall(digest)
        bases = {each.digest: each for each in installed}
        if known is None or not set(known.held) <= set(bases):
            return None
        self._waiting = ""
        self._fetch = await self._start_fetch(known.pack, known.size, Precedence(job.rollout.precedence), "content")
        self._fetch.deadline_s = job.rollout.deadline_s
        try:
            path = await self._fetch.run()
        except RefusedError as refusal:
            if refusal.is_passing:
                raise
            # The gateway keeps it no longer: another one has to be made.
            await self._drop_pack()
            await self._forget(digest)
            return None
        return path, list_held([bases[each].manifest.files for each in known.held])

    async def _forget(self, digest: bytes) -> None:
        if self._known_packs is not None:
            await self._known_packs.forget(digest)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done about any bundle, nor about to be begun."""
        return self._idle.is_set() and not self._wake.is_set()

    async def _offer(self, job: Job, request: PackRequest) -> PackOffer:
        while True:
            precedence = self._precedence(job)
            links = [link for link in self._uplink.links.values() if self._uplink.may(link, precedence)]
            if not links:
                raise LinkDownError("no link may carry this content now")
            offer = await self._ask_for_offer(min(links, key=lambda each: each.price), precedence, request)
            if offer.digest is not None:
                return offer
            self._waiting = "the gateway is making the pack"
            await asyncio.sleep(max(1, min(offer.wait_s, 3600)))

    async def _ask_for_offer(self, link: Link, precedence: Precedence, request: PackRequest) -> PackOffer:
        # One datagram that is lost must not cost a pause of minutes: asking again is harmless.
        for tries_left in reversed(range(_OFFER_TRIES)):
            try:
                answered = await link.request(
                    codes.FETCH,
                    PATH_PACK,
                    request.encode(),
                    precedence=precedence,
                    cause="content",
                    timeout_s=min(_REQUEST_TIMEOUT_S, _OFFER_S + 3 * (link.rtt_s or 2.0)),
                )
            except LinkDownError:
                if not tries_left:
                    raise
            else:
                return PackOffer.decode(answered.payload)
        raise LinkDownError(f"{link.name} brings no offer")

    async def _reject(self, job: Job, failure: Exception) -> None:
        log.error("bundle.rejected", bundle=job.rollout.bundle, reason=str(failure))
        pause_s = _EVER_S
        if isinstance(failure, LocalError | OSError):
            pause_s = _LOCAL_TROUBLE_S
        elif isinstance(failure, RefusedError):
            pause_s = _REFUSED_S
        self._failed[job.key] = self._monotonic() + pause_s
        self._roomless.note(job, failure)
        if self._told.get(job.key) != str(failure):
            self._told[job.key] = str(failure)
            await self._report(job, Outcome.REJECTED, str(failure))

    async def _report(self, job: Job, outcome: Outcome, reason: str) -> None:
        await self._send_receipt(receipt_of(job, outcome, reason, self._wall_ms()))

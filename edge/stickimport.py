"""Taking what a courier's stick, a depot or another truck brings: documents, acknowledgements, content.

The order is that of trust. The stick's own signature and the list of revoked sticks come first; its desired state is
believed as if it had come over a link, and its documents with it; then what the gateway has of this truck; then files
of the bundles that this truck's own documents want, each hashed before it counts. A folder without a signed `Stick`
brings files alone. Whatever breaks off (a stick that is pulled out, a full disk) leaves what came, and goes on then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from edge.believed import read_held
from edge.installer import Installed
from edge.stickpacks import take_packs
from edge.sticksource import Source
from protocol import cose
from protocol.documents import (
    BYTES_MAX,
    Desired,
    DesiredEntry,
    Manifest,
    ManifestFile,
    Stick,
    StickTruck,
    parse_document,
)
from protocol.errors import ExpiredError, PeerError, RollbackError, SignatureError, UntrustedError
from protocol.messages import Ack
from protocol.numbers import DESIRED_BYTES_MAX, STICK_BYTES_MAX, DocumentKind
from protocol.pack import wanted_files
from store.sealing import ObjectSeal, key_info, open_sealed
from store.stickfolder import STICK, StickError
from store.stickobjects import ObjectForm

if TYPE_CHECKING:
    from edge.daemon import Edge

log = structlog.get_logger("edge.stickimport")

T = TypeVar("T")
_MISSING_NAMED_MAX: Final = 3


@dataclass
class Brought:
    """What was taken, as far as it got; `notes` are lines for the person who holds the stick."""

    notes: list[str] = field(default_factory=list)
    bundles: set[str] = field(default_factory=set)
    files: int = 0
    bytes: int = 0
    missing: int = 0
    delivered: int = 0


Told = Callable[[str, int, int], None]
"""Hears what is being done, bytes done, bytes in all."""


class StickImport:
    """One import into a running truck."""

    def __init__(self, edge: Edge, source: Source, told: Told) -> None:
        self._edge = edge
        self._source = source
        self._told = told
        self.brought = Brought()

    async def run(self) -> Brought:
        """Take all that there is for this truck; raise `PeerError`, `LocalError` with the next step."""
        self._told("reading", 0, 0)
        signed = await self._thread(self._source.read, STICK, STICK_BYTES_MAX)
        seal: ObjectSeal | None = None
        stick: Stick | None = None
        if signed is None:
            self._note("no signed stick: only content that this truck wants already is taken")
        else:
            stick, mine, seal = await self._believed(signed)
            await self._committed(mine)
        async with self._edge.bundles.paused():
            await self._content(stick, seal)
        return self.brought

    # -- who made it, and what it says ---------------------------------------------------------------------------------

    async def _believed(self, signed: bytes) -> tuple[Stick, StickTruck, ObjectSeal | None]:
        """Believe the stick, then its documents; raise `PeerError` for one that is not ours."""
        trust, keys = self._edge.trust, self._edge.keys
        stick, _ = parse_document(signed, Stick)
        mine = next((each for each in stick.trucks if each.truck == trust.truck), None)
        if mine is None:
            some = ", ".join(each.truck for each in stick.trucks[:5])
            raise UntrustedError(f"this stick is for {some}, not for {trust.truck}")
        await self._check_revoked(stick)
        seal = None
        if mine.key:
            seal = ObjectSeal(open_sealed(keys.edhoc.private, mine.key, key_info(stick.stick, mine.truck)))
        desired = await self._small(mine.desired, DESIRED_BYTES_MAX, seal)
        now_s = self._edge.clock.at_least_s()
        try:
            trust.check_stick(signed, now_s)
        except SignatureError:
            # The gateway has other keys by now: the roots that say so are on the stick as well.
            if desired is None:
                raise
            await self._documents(desired, seal)
            trust.check_stick(signed, self._edge.clock.at_least_s())
        except ExpiredError as error:
            raise ExpiredError(f"{error}: ask for a new export onto this stick") from error
        else:
            if desired is None:
                raise StickError("the stick lacks its documents: it was not written to its end; export it again")
            await self._documents(desired, seal)
        # The documents that just came may revoke the very stick that they came on.
        await self._check_revoked(stick)
        return stick, mine, seal

    async def _check_revoked(self, stick: Stick) -> None:
        edge = self._edge
        held = await edge.writer.run(lambda: edge.documents.current(DocumentKind.DESIRED, edge.enrolment.truck))
        if held is not None and stick.stick in read_held(held.signed, Desired).revoked_sticks:
            raise UntrustedError(f"stick {stick.stick.hex()} was revoked: nothing is taken from it; tell an operator")

    async def _documents(self, desired: bytes, seal: ObjectSeal | None) -> None:
        async def bring(entry: DesiredEntry) -> bytes:
            signed = await self._small(entry.digest, BYTES_MAX[entry.document], seal, size=entry.size)
            if signed is None:
                raise StickError(
                    f"the stick lacks a {entry.document.name.lower()}: it was not written to its end; export it again"
                )
            return signed

        try:
            await self._edge.downlink.take(desired, bring)
        except RollbackError:
            self._note("its documents are older than this truck's: they are left alone")
        else:
            version = parse_document(desired, Desired)[0].version
            self._note(f"documents are those of desired state {version}")

    async def _small(self, digest: bytes, bytes_max: int, seal: ObjectSeal | None, size: int = 0) -> bytes | None:
        """Return a document by its digest, None if the stick lacks it; raise `PeerError` for other bytes."""
        if seal is None:
            path = ObjectForm(digest, 0, None).path(0)
            data = await self._thread(self._source.read, path, bytes_max)
        else:
            stored = await self._thread(self._source.read, ObjectForm(digest, 0, seal).path(0), bytes_max + (1 << 16))
            data = None if stored is None else seal.open_whole(digest, stored)
        if data is None:
            return None
        if cose.digest(data) != digest or (size and len(data) != size):
            raise StickError("a document on the stick is damaged: export it again, the rest over a link stays as it is")
        return data

    async def _committed(self, mine: StickTruck) -> None:
        edge = self._edge
        for each in mine.committed:
            ack = Ack(cumulative=each.cumulative, ranges=each.ranges)
            now_s = edge.clock.at_least_s()
            delivered = await edge.writer.run(
                partial(edge.queue.mark_carried, ack, each.epoch, each.newest, now_s),
            )
            if delivered and each.epoch == edge.uplink.forwarder.epoch:
                edge.uplink.forwarder.withdraw_covered(ack)
            self.brought.delivered += delivered
        if self.brought.delivered:
            await edge.uplink.reload()
        self._note(f"{self.brought.delivered} parcels are confirmed by the gateway")

    # -- content -------------------------------------------------------------------------------------------------------

    async def _content(self, stick: Stick | None, seal: ObjectSeal | None) -> None:
        installer, wanted = self._edge.installer, self._edge.wanted
        manifests = {digest: parse_document(signed, Manifest)[0] for digest, signed in wanted.manifests.items()}
        named = [each.manifest for each in sorted(wanted.rollouts, key=lambda each: each.precedence)]
        installed = await self._thread(installer.installed)
        have = {each.digest for each in installed}
        todo = [(digest, manifests[digest]) for digest in named if digest in manifests and digest not in have]
        await self._thread(installer.inbox.clean, frozenset(f.digest for _, each in todo for f in each.files))
        if not todo:
            self._note("no content is wanted that is not here")
        for digest, manifest in todo:
            await self._thread(installer.check_room, manifest)
            whole = None
            if stick is not None:
                whole = await take_packs(
                    self._edge,
                    self._source,
                    stick=stick,
                    manifest=digest,
                    seal=seal,
                    installed=installed,
                    told=self._told,
                )
            if whole is not None:
                title = f"{manifest.name} {manifest.label}"
                rest = "is here" if whole else "is here in part; the rest of it comes over a link or by the next stick"
                self._note(f"{title}: its pack {rest}")
                self.brought.bundles |= {manifest.name} if whole else set()
                continue
            await self._files(manifest, seal, installed)

    async def _files(self, manifest: Manifest, seal: ObjectSeal | None, installed: tuple[Installed, ...]) -> None:
        installer = self._edge.installer
        held = {file.digest for each in installed for file in each.manifest.files}
        files = wanted_files(manifest, tuple(held))
        total, done, missing = sum(file.size for file in files), 0, []
        title = f"{manifest.name} {manifest.label}"

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._told(f"copying {title}", done, total)

        for file in files:
            form = ObjectForm(file.digest, file.size, seal)
            if file.digest not in installer.inbox.places() and not await self._thread(self._source.has, form):
                missing.append(file)
                continue
            try:
                await self._thread(installer.inbox.take, file, partial(self._source.chunks, form), advance)
            except PeerError as error:
                # One bad file must not keep the good ones: the truck gets it by another way.
                log.warning("stick.damaged", file=file.path, reason=str(error))
                missing.append(file)
            else:
                self.brought.files += 1
                self.brought.bytes += file.size
        self._summary(title, files, missing)
        if not missing:
            self.brought.bundles.add(manifest.name)
        self.brought.missing += len(missing)

    def _summary(self, title: str, files: tuple[ManifestFile, ...], missing: list[ManifestFile]) -> None:
        if not missing:
            self._note(f"{title}: all {len(files)} files are here")
            return
        some = ", ".join(file.path for file in missing[:_MISSING_NAMED_MAX])
        more = " ..." if len(missing) > _MISSING_NAMED_MAX else ""
        self._note(
            f"{title}: {len(missing)} of {len(files)} files are not on it or damaged ({some}{more}); "
            "what came is kept, the rest comes over a link or by the next stick"
        )

    def _note(self, text: str) -> None:
        self.brought.notes.append(text)

    async def _thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run what blocks in a thread; when cancelled, wait for its end: two of them must not meet on the disk."""
        running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            raise

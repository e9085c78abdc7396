"""A truck's real trust and content code against a scripted gateway that holds every key a gateway has, and lies.

Only the link is a fake: `ScriptedLink` answers what the gateway says. The trusted set, the documents' database, the
downlink, the fetch with its staging area, the bundles and the installer are those of the daemon.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aiocoap.numbers import codes
from msgspec import structs

from edge.believed import Wanted, load_trust
from edge.bundles import Bundles
from edge.bursts import Bursts
from edge.clock import Clock
from edge.downlink import Downlink
from edge.fetch import Fetch
from edge.identity import Enrolment
from edge.installer import Installer
from edge.link import Answered
from edge.link_errors import LinkDownError, RefusedError
from edge.spending import Unmetered
from edge.uplink import Contact
from protocol import cose
from protocol.documents import (
    Addressee,
    Config,
    Delegation,
    Desired,
    DesiredEntry,
    Document,
    Manifest,
    ManifestFile,
    OperatorRole,
    PublisherRole,
    RoleKeys,
    Rollout,
    Root,
    parse_document,
    sign_document,
)
from protocol.errors import PeerError
from protocol.messages import Ack, PackOffer, PackRequest, PiecesRequest, Receipt
from protocol.numbers import PATH_DOCUMENT, PATH_PACK, PATH_PIECES, PIECE_BYTES, DocumentKind, Outcome, Precedence
from protocol.pack import encode_pack, wanted_files
from store.database import Database, open_database
from store.documents import Documents
from store.schema import STATE
from store.staging import Staging
from store.writer import Writer

NOW = 1_800_000_000
DAY = 86_400
SOON, LATER = NOW + DAY, NOW + 400 * DAY
TRUCK, GROUP, BUNDLE = "ke-arrow", "kenya", "maths"
PATIENCE_S = 60.0

Answer = Callable[[bytes], bytes]


def key(name: str) -> cose.SigningKey:
    """Return the key that somebody of this name always has."""
    return cose.SigningKey(cose.digest(name.encode()))


def role(threshold: int, *names: str) -> RoleKeys:
    """Return a role held by people of these names."""
    return RoleKeys(threshold, tuple(key(name).public for name in names))


ROOTS = ("root-a", "root-b", "root-c")
NEW_ROOTS = ("root-d", "root-e", "root-f")
GATEWAY, NEW_GATEWAY, OPERATOR, PUBLISHER = "gateway", "gateway-2", "operator", "publisher"
SECOND_OPERATOR, FAR_OPERATOR, FAR_PUBLISHER = "operator-2", "operator-zambia", "publisher-games"


def sign(document: Document, *names: str) -> bytes:
    """Return a document signed by people of these names."""
    return sign_document(document, [key(name) for name in names])


def root(version: int = 1, **changes: Any) -> Root:
    """Return a root document: two of three people, one gateway key."""
    return structs.replace(
        Root(DocumentKind.ROOT, version, NOW - 10, LATER, role(2, *ROOTS), role(1, GATEWAY)), **changes
    )


def delegation(version: int = 1, **changes: Any) -> Delegation:
    """Return the role table: a publisher of maths, another of games, operators of two groups."""
    document = Delegation(
        DocumentKind.DELEGATION,
        version,
        NOW - 10,
        LATER,
        publishers=(PublisherRole("maths", role(1, PUBLISHER)), PublisherRole("games", role(1, FAR_PUBLISHER))),
        operators=(OperatorRole(GROUP, role(1, OPERATOR)), OperatorRole("zambia", role(1, FAR_OPERATOR))),
    )
    return structs.replace(document, **changes)


def config(version: int = 1, **changes: Any) -> Config:
    """Return a configuration for the truck."""
    return structs.replace(
        Config(DocumentKind.CONFIG, version, NOW - 10, LATER, Addressee((TRUCK,)), batch_age_s=100 + version), **changes
    )


def manifest(files: dict[str, bytes], version: int = 1, **changes: Any) -> Manifest:
    """Return the manifest of a bundle."""
    listed = tuple(ManifestFile(path, len(data), cose.digest(data)) for path, data in sorted(files.items()))
    document = Manifest(DocumentKind.MANIFEST, version, NOW - 10, LATER, BUNDLE, f"v{version}", "static", listed)
    return structs.replace(document, **changes)


def rollout(signed_manifest: bytes | None, version: int = 1, **changes: Any) -> Rollout:
    """Return a rollout of a manifest to the truck."""
    digest = None if signed_manifest is None else cose.digest(signed_manifest)
    document = Rollout(DocumentKind.ROLLOUT, version, NOW - 10, LATER, Addressee((TRUCK,)), BUNDLE, digest)
    return structs.replace(document, **changes)


@dataclass
class Gateway:
    """What a gateway says; everything in it may be a lie."""

    documents: dict[bytes, bytes] = field(default_factory=dict)
    blobs: dict[bytes, bytes] = field(default_factory=dict)
    packs: dict[bytes, bytes] = field(default_factory=dict)
    desired: bytes = b""
    version: int = 0
    signer: str = GATEWAY
    requests: list[tuple[str, bytes, tuple[str, ...]]] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)
    override: dict[str, Callable[[bytes, tuple[str, ...]], bytes | None]] = field(default_factory=dict)

    def hold(self, *signed: bytes) -> None:
        """Have documents to give out."""
        self.documents |= {cose.digest(each): each for each in signed}

    def entry(self, signed: bytes) -> DesiredEntry:
        """Return the line of a desired state that truly describes a document."""
        payload = cose.parse(signed).payload
        for kind in (Root, Delegation, Config, Manifest, Rollout, Desired):
            try:
                document = parse_document(signed, kind)[0]
            except PeerError:
                continue
            return DesiredEntry(document.kind, document.version, cose.digest(signed), len(signed))
        raise AssertionError(payload)

    def state(self, *entries: DesiredEntry, truck: str = TRUCK, **changes: Any) -> bytes:
        """Sign the next desired state with the gateway's own key, and give it out."""
        self.version = changes.pop("version", self.version + 1)
        document = Desired(DocumentKind.DESIRED, self.version, NOW - 5, SOON, truck, entries)
        self.desired = sign(structs.replace(document, **changes), self.signer)
        return self.desired

    def want(self, *signed: bytes) -> bytes:
        """Hold documents and sign a desired state that names them."""
        self.hold(*signed)
        return self.state(*(self.entry(each) for each in signed))

    def publish(self, files: dict[str, bytes], signed_manifest: bytes) -> None:
        """Have the pack from nothing to a manifest."""
        self.blobs |= {cose.digest(data): data for data in files.values()}
        self.packs[cose.digest(signed_manifest)] = self.pack(signed_manifest, frozenset())

    def pack(self, signed_manifest: bytes, held: frozenset[bytes]) -> bytes:
        """Return the honest pack to a manifest for a truck that holds some contents."""
        document = parse_document(signed_manifest, Manifest)[0]
        return b"".join(encode_pack(iter([self.blobs[each.digest] for each in wanted_files(document, held)])))

    def answer(self, path: str, payload: bytes, query: tuple[str, ...]) -> bytes:
        """Return the payload of the answer to a request."""
        self.requests.append((path, payload, query))
        if path in self.override:
            forged = self.override[path](payload, query)
            if forged is not None:
                return forged
        if path == PATH_DOCUMENT:
            return self._document(query[0])
        if path == PATH_PIECES:
            return self.piece(PiecesRequest.decode(payload))
        assert path == PATH_PACK, path
        return self._offer(PackRequest.decode(payload))

    def asked(self, path: str) -> int:
        """Return how often a path was asked for."""
        return sum(each == path for each, _, _ in self.requests)

    def _document(self, query: str) -> bytes:
        if query == "desired":
            return self.desired
        found = self.documents.get(base64.urlsafe_b64decode(query + "="))
        if found is None:
            raise RefusedError("4.04", "no such document is here")
        return found

    def piece(self, wanted: PiecesRequest) -> bytes:
        """Return the true bytes of one piece."""
        every = {**self.documents, **{cose.digest(pack): pack for pack in self.packs.values()}}
        data = every.get(wanted.digest)
        if data is None:
            raise RefusedError("4.04", "no such object is here")
        return data[wanted.first * PIECE_BYTES : (wanted.first + 1) * PIECE_BYTES]

    def _offer(self, request: PackRequest) -> bytes:
        pack = self.packs.get(request.manifest)
        if pack is None:
            raise RefusedError("4.04", "no such manifest is here")
        return PackOffer(digest=cose.digest(pack), size=len(pack)).encode()


class ScriptedLink:
    """The part of a link that the downlink, the fetch and the bundles use."""

    rtt_s = 0.001
    takes_bursts = is_away = False
    resting = False
    rests_until = 0.0
    usable = True

    def __init__(self, name: str, gateway: Gateway, *, price: float = 1.0) -> None:
        self.name, self.gateway, self.price = name, gateway, price
        self.silent = False
        self.bursts = Bursts(Unmetered(), monotonic=time.monotonic, on_heard=lambda _: None, count=lambda **_: None)
        self.timeouts_s: list[float] = []
        self.downs = 0
        self.ended = 0

    async def request(
        self,
        code: codes.Code,
        path: str,
        payload: bytes,
        *,
        precedence: Precedence,
        cause: str,
        timeout_s: float,
        query: tuple[str, ...] = (),
        answer_bytes: int = 0,
    ) -> Answered:
        """Answer as the gateway does; a silent one lets the (shortened) timeout pass."""
        self.timeouts_s.append(timeout_s)
        await asyncio.sleep(0)
        if code == codes.POST and path == PATH_DOCUMENT:
            self.gateway.told.append(payload)
            return Answered(b"", 0.001)
        if self.silent:
            self.gateway.requests.append((path, payload, query))
            await asyncio.sleep(0.002)
            raise LinkDownError("no answer in time")
        return Answered(self.gateway.answer(path, payload, query), 0.001)

    def mark_down(self) -> None:
        """Note that nothing came back."""
        self.downs += 1

    def rest(self, seconds: float) -> None:
        """Rest as the real one does, only shorter."""
        self.resting = True
        asyncio.get_running_loop().call_later(0.02, setattr, self, "resting", False)

    def session_lost(self) -> None:
        """Nothing to renew here."""

    def end_session(self) -> None:
        """Note that the next request would make a new one."""
        self.ended += 1


class ScriptedUplink:
    """The part of the uplink that is used: links in a map, and leave to use them."""

    def __init__(self, *links: ScriptedLink) -> None:
        self.links = {link.name: link for link in links}
        self.listeners: set[asyncio.Event] = set()

    def may(self, link: ScriptedLink, precedence: Precedence, **_: int | None) -> bool:
        """Whether a link may carry something now."""
        return not link.resting

    def wake(self) -> None:
        """Nobody sleeps."""


class Truck:
    """A truck as it stands after enrolment: the root is pinned, nothing else is known."""

    def __init__(self, folder: Path, gateway: Gateway, *, floor_s: int = NOW, offset_s: float | None = None) -> None:
        self.folder = folder
        self.gateway = gateway
        self.link = ScriptedLink("sat", gateway)
        self.uplink = ScriptedUplink(self.link)
        self.receipts: list[Receipt] = []
        self.wanted = Wanted(None, (), {})
        self.state: Database = open_database(folder / "state.db", schema=STATE, share_bytes=16 << 20)
        self.documents = Documents(self.state)
        pinned = sign(root(), *ROOTS[:2])
        if self.documents.current(DocumentKind.ROOT) is None:
            self.documents.put_trusted(DocumentKind.ROOT, "", 1, cose.digest(pinned), pinned)
        self.clock = Clock(boot=1, floor_s=floor_s, offset_s=offset_s)
        enrolment = Enrolment(TRUCK, GROUP, ("127.0.0.1:1",), bytes(32), cose.digest(pinned))
        self.trust = load_trust(self.documents, enrolment, self.clock)
        self.writer = Writer(self.state)
        self.writer.start()
        self.installer = Installer(folder / "content", bytes_max=64 << 20)
        uplink: Any = self.uplink
        self.bundles = Bundles(
            uplink,
            self.installer,
            start_fetch=self._start_fetch,
            send_receipt=self._receipt,
            wall_ms=lambda: NOW * 1000,
            monotonic=time.monotonic,
        )
        self.downlink = Downlink(
            uplink,
            self.trust,
            self.documents,
            self.writer,
            self.clock,
            fetch=self._fetch_document,
            send_receipt=self._receipt,
            on_wanted=self._on_wanted,
        )

    async def sync(self) -> PeerError | None:
        """Sync once, as on an acknowledgement that names a new desired state; return what it was refused with."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.downlink._sync()
        except PeerError as refusal:
            return refusal
        return None

    async def hear(self) -> None:
        """Tell the downlink of the gateway's desired state by an acknowledgement."""
        ack = Ack(cumulative=0, desired=cose.digest(self.gateway.desired)[:8])
        await self.downlink.contact(Contact(link="sat", ack=ack, asked_at=time.monotonic()))

    async def work(self, done: Callable[[], bool], *, within_s: float = PATIENCE_S) -> bool:
        """Let the bundles work until something holds, or for a while; return whether it does."""
        work = asyncio.create_task(self.bundles.run())
        try:
            until = time.monotonic() + within_s
            while not done() and time.monotonic() < until and not work.done():
                await asyncio.sleep(0.005)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return done()

    async def install(self) -> bool:
        """Let the bundles work until each wanted one is settled by a receipt; return whether one is active."""
        seen = len(self.receipts)
        await self.work(lambda: len(self.receipts) > seen)
        return self.active() is not None

    def active(self, name: str = BUNDLE) -> str | None:
        """Return the label of the active version of a bundle."""
        found = self.installer.active(name)
        return None if found is None else found.manifest.label

    def config_version(self) -> int | None:
        """Return the version of the configuration that is to be applied."""
        return None if self.wanted.config is None else self.wanted.config[1].version

    def files(self) -> list[str]:
        """Return every regular file below the content folder."""
        return sorted(str(each.relative_to(self.folder)) for each in (self.folder / "content").rglob("*"))

    def rejected(self, kind: DocumentKind) -> list[str]:
        """Return the reasons of the receipts that reject a document of this kind."""
        return [each.reason for each in self.receipts if (each.document, each.outcome) == (kind, Outcome.REJECTED)]

    def refused(self, *signed: bytes) -> bool:
        """Return whether each of these very documents was rejected by a receipt."""
        rejected = {each.digest for each in self.receipts if each.outcome is Outcome.REJECTED}
        return rejected >= {cose.digest(each) for each in signed}

    def versions(self) -> dict[tuple[DocumentKind, str], int]:
        """Return the highest versions that are trusted, durably."""
        return {(kind, n): v for kind in DocumentKind for n, v in self.documents.highest_versions(kind).items()}

    async def close(self) -> None:
        """Stop, as a power cut after the last commit would."""
        await self.writer.close()
        self.state.close()

    async def restarted(self) -> Truck:
        """Return the truck after a restart of its daemon."""
        await self.close()
        return Truck(self.folder, self.gateway, floor_s=self.clock.floor_s)

    async def _receipt(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)

    async def _on_wanted(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.bundles.want(wanted.rollouts, wanted.manifests)

    async def _start_fetch(self, digest: bytes, size: int, precedence: Precedence, cause: str) -> Fetch:
        place = self.folder / "staging"
        staging = await self.writer.run(
            partial(Staging, self.state, place, digest, size, PIECE_BYTES, bytes_max=64 << 20)
        )
        uplink: Any = self.uplink
        return Fetch(
            uplink, self.writer, staging, precedence=precedence, cause=cause, monotonic=asyncio.get_running_loop().time
        )

    async def _fetch_document(self, digest: bytes, size: int, precedence: Precedence, cause: str) -> bytes:
        fetch = await self._start_fetch(digest, size, precedence, cause)
        path = await fetch.run()
        try:
            return path.read_bytes()
        finally:
            await fetch.discard()


@dataclass(frozen=True)
class Good:
    """Everything honest: what people signed for the truck, in the versions that the story needs."""

    files: dict[str, bytes]
    delegation: bytes
    config: bytes
    manifest: bytes
    rollout: bytes

    @classmethod
    def make(cls, version: int = 1, *, files: dict[str, bytes] | None = None) -> Good:
        """Sign one version of everything."""
        contents = files or {"index.html": b"<p>lesson %d" % version, "a/b.txt": b"text of version %d" % version}
        signed = sign(manifest(contents, version), PUBLISHER)
        return cls(
            contents,
            sign(delegation(), *ROOTS[:2]),
            sign(config(version), OPERATOR),
            signed,
            sign(rollout(signed, version), OPERATOR),
        )

    @property
    def all(self) -> Iterable[bytes]:
        """Every document."""
        return self.delegation, self.config, self.rollout, self.manifest

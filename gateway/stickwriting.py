"""Writing a courier's stick from a plan of the gateway's: the signed `Stick`, then documents, then files, urgent first.

What is on the stick already, whole and of the right digest, is not fetched again, and a file that broke off goes on. A
stick that is pulled out half-way is usable as far as it got. Deliberately absent: believing what the gateway hands out
beyond its digests; trucks check every signature themselves.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

from gateway.client import SyncClient
from gateway.contentanswers import StickPlan, StickTruckPlan
from protocol import cose
from protocol.documents import Manifest, Rollout, Stick, StickPack, parse_document, read_document
from protocol.errors import PeerError
from protocol.numbers import STICK_CHUNK_BYTES
from store.errors import DigestMismatchError
from store.sealing import ObjectSeal
from store.stickfolder import STICK, StickFolder, StickFullError
from store.stickobjects import ObjectForm, is_whole, write_object

Progress = Callable[[int, int], None]
"""Told (bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True)
class Item:
    """One object that belongs on a stick; `data` is what a document says, None for a file."""

    form: ObjectForm
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What belongs on a stick: objects in the order of writing, and their bytes in all."""

    items: tuple[Item, ...]
    bundles: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(each.form.size for each in self.items)


def gather(client: SyncClient, plan: StickPlan, *, whole: bool, bundles: frozenset[str]) -> Contents:
    """Fetch a plan's documents and list its objects; raise `PeerError` for what the gateway cannot hand out.

    `whole`: also files that the trucks hold by their receipts. `bundles` narrows the files to some bundles, if any.
    """
    seal = None if plan.key is None else ObjectSeal(bytes.fromhex(plan.key))
    stick, _ = parse_document(base64.b64decode(plan.signed), Stick)
    packed = {each.manifest for each in stick.packs}
    documents: dict[str, bytes] = {}
    small: dict[bytes, Item] = {}
    files: dict[bytes, tuple[int, Item]] = {}
    names: set[str] = set()
    for truck in plan.plans:
        desired = base64.b64decode(truck.desired)
        small[cose.digest(desired)] = Item(ObjectForm(cose.digest(desired), len(desired), seal), desired)
        for digest in truck.documents:
            signed = _document(client, documents, digest)
            small[bytes.fromhex(digest)] = Item(ObjectForm(bytes.fromhex(digest), len(signed), seal), signed)
        held = set() if whole else _held(client, documents, truck)
        precedences = _precedences(truck, documents)
        for digest in truck.manifests:
            manifest, _ = parse_document(_document(client, documents, digest), Manifest)
            if bundles and manifest.name not in bundles:
                continue
            names.add(f"{manifest.name} {manifest.label}")
            if bytes.fromhex(digest) in packed and not whole:
                continue
            for file in manifest.files:
                if file.size and file.digest not in held:
                    rank = precedences.get(digest, 3)
                    known = files.get(file.digest)
                    if known is None or rank < known[0]:
                        files[file.digest] = rank, Item(ObjectForm(file.digest, file.size, seal), None)
    for pack in stick.packs:
        leaves = _leaves(client, pack)
        small[pack.leaves] = Item(ObjectForm(pack.leaves, len(leaves), seal), leaves)
        files[pack.pack] = 0, Item(ObjectForm(pack.pack, pack.size, seal), None)
    ordered = [item for _, item in sorted(files.values(), key=lambda each: each[0])]
    return Contents((*small.values(), *ordered), tuple(sorted(names)))


def write(client: SyncClient, folder: StickFolder, plan: StickPlan, contents: Contents, progress: Progress) -> int:
    """Write a stick; return how many bytes were new on it. Raises `StickError`, `PeerError`."""
    folder.create()
    folder.write(STICK, base64.b64decode(plan.signed))
    if not is_same_plan(folder, plan):
        raise DigestMismatchError("the stick does not hold what was just written to it: take another one")
    # What an earlier plan left makes room for this one.
    folder.keep_objects(frozenset(each.form.name.hex() for each in contents.items))
    missing = sum(each.form.size for each in contents.items if not is_whole(folder, each.form))
    if missing > folder.free_bytes():
        raise StickFullError(
            f"{folder.path} has room for {folder.free_bytes()} bytes and {missing} are still to be written: "
            "take a larger stick, or fewer trucks or bundles (--bundle)"
        )
    done, total = 0, contents.size
    for each in contents.items:
        done_before = done
        advanced = 0

        def advance(count: int, before: int = done_before) -> None:
            nonlocal advanced
            advanced += count
            progress(before + advanced, total)

        fetch = partial(_fetch, client, each)
        try:
            write_object(folder, each.form, fetch, advance)
        except DigestMismatchError:
            # Once more from nothing: what was on the stick before may have rotted.
            advanced = 0
            write_object(folder, each.form, fetch, advance)
        done += each.form.size
    return missing


def is_same_plan(folder: StickFolder, plan: StickPlan) -> bool:
    """Return whether the stick holds this plan's signed `Stick`."""
    signed = base64.b64decode(plan.signed)
    return folder.read(STICK, len(signed) + 1) == signed


def _fetch(client: SyncClient, item: Item, offset: int) -> Generator[bytes]:
    if item.data is not None:
        yield item.data[offset:]
        return
    yield from client.blob(item.form.digest.hex(), first=offset)


def _leaves(client: SyncClient, pack: StickPack) -> bytes:
    """Return the digests of a pack's chunks; raise `PeerError` if that is not what the stick says."""
    found, pending = bytearray(), bytearray()
    for block in client.blob(pack.pack.hex()):
        pending += block
        while len(pending) >= STICK_CHUNK_BYTES:
            found += hashlib.sha256(pending[:STICK_CHUNK_BYTES]).digest()
            del pending[:STICK_CHUNK_BYTES]
    if pending:
        found += hashlib.sha256(pending).digest()
    if cose.digest(bytes(found)) != pack.leaves:
        raise PeerError("the gateway handed out another pack than it named")
    return bytes(found)


def _document(client: SyncClient, known: dict[str, bytes], digest: str) -> bytes:
    if digest not in known:
        signed = client.document(digest)
        if cose.digest(signed).hex() != digest:
            raise PeerError("the gateway handed out other bytes than it named")
        known[digest] = signed
    return known[digest]


def _held(client: SyncClient, documents: dict[str, bytes], truck: StickTruckPlan) -> set[bytes]:
    held: set[bytes] = set()
    for digest in truck.held:
        manifest, _ = parse_document(_document(client, documents, digest), Manifest)
        held |= {file.digest for file in manifest.files}
    return held


def _precedences(truck: StickTruckPlan, documents: dict[str, bytes]) -> dict[str, int]:
    """Return the precedence of each manifest, by the rollouts that name it."""
    found: dict[str, int] = {}
    for digest in truck.documents:
        document = read_document(cose.parse(documents[digest]).payload)
        if isinstance(document, Rollout) and document.manifest is not None:
            found[document.manifest.hex()] = min(document.precedence, found.get(document.manifest.hex(), 3))
    return found

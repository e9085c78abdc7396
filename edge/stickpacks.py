"""Packs on a stick: chunks that are right fill the very map that pieces from a link fill, so nothing is paid twice.

`leaves` is the list of the chunks' digests, itself named by the signed `Stick`: one bad byte costs one chunk. A pack
that is whole, or in part, is remembered under its manifest, so that the rest is asked for by this pack's digest and no
other one is made.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from edge.installer import Installed
from edge.knownpacks import KnownPack
from edge.sticksource import Source
from protocol.documents import Stick, StickPack
from protocol.errors import MalformedError, PeerError
from protocol.numbers import DIGEST_BYTES, PIECE_BYTES, STICK_CHUNK_BYTES
from store.sealing import ObjectSeal
from store.staging import Staging
from store.stickobjects import ObjectForm

if TYPE_CHECKING:
    from edge.daemon import Edge

log = structlog.get_logger("edge.stickpacks")

_LEAVES_MAX: Final = 1 << 20  # chunks: a pack of a TiB


async def take_packs(
    edge: Edge,
    source: Source,
    *,
    stick: Stick,
    manifest: bytes,
    seal: ObjectSeal | None,
    installed: tuple[Installed, ...],
    told: Callable[[str, int, int], None],
) -> bool | None:
    """Take what a stick holds of a pack that leads to a manifest from what is installed.

    Return whether it is whole now; None: the stick has none that this truck can use.
    """
    have = {each.digest for each in installed}
    for pack in stick.packs:
        if pack.manifest == manifest and set(pack.held) <= have and pack.size > 0:
            return await _take(edge, source, pack, seal, told)
    return None


async def _take(
    edge: Edge, source: Source, pack: StickPack, seal: ObjectSeal | None, told: Callable[[str, int, int], None]
) -> bool:
    form = ObjectForm(pack.pack, pack.size, seal)
    leaves = await asyncio.to_thread(_leaves, source, pack, seal)
    staging = await edge.writer.run(partial(edge.open_staging, pack.pack, pack.size))
    try:
        known = KnownPack(pack.pack, pack.size, pack.held)
        await edge.known_packs.remember(pack.manifest, known)
        for number in range(form.chunks):
            if _is_held(staging, number):
                continue
            try:
                chunk = await asyncio.to_thread(_chunk, source, form, number)
            except PeerError as error:
                log.warning("stick.damaged", pack=pack.pack.hex()[:16], chunk=number, reason=str(error))
                continue
            if hashlib.sha256(chunk).digest() == leaves[number]:
                await edge.writer.run(partial(_put, staging, number, chunk))
            told("copying a pack", min(pack.size, (number + 1) * STICK_CHUNK_BYTES), pack.size)
        return staging.is_full
    finally:
        await edge.writer.run(staging.close)


def _leaves(source: Source, pack: StickPack, seal: ObjectSeal | None) -> list[bytes]:
    chunks = -(-pack.size // STICK_CHUNK_BYTES)
    if chunks > _LEAVES_MAX:
        raise MalformedError("the stick names a pack that no truck has room for")
    form = ObjectForm(pack.leaves, chunks * DIGEST_BYTES, seal)
    data = b"".join(source.chunks(form))
    if hashlib.sha256(data).digest() != pack.leaves:
        raise MalformedError("the list of a pack's chunks is damaged")
    return [data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)]


def _chunk(source: Source, form: ObjectForm, number: int) -> bytes:
    chunks = source.chunks(form, number)
    try:
        return next(chunks, b"")
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def _pieces(staging: Staging, number: int) -> range:
    first = number * STICK_CHUNK_BYTES // PIECE_BYTES
    return range(first, min(staging.pieces, first + STICK_CHUNK_BYTES // PIECE_BYTES))


def _is_held(staging: Staging, number: int) -> bool:
    return all(staging.has(index) for index in _pieces(staging, number))


def _put(staging: Staging, number: int, chunk: bytes) -> None:
    for index in _pieces(staging, number):
        at = index * PIECE_BYTES - number * STICK_CHUNK_BYTES
        staging.put(index, chunk[at : at + PIECE_BYTES])

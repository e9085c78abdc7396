"""Packs made: from files that are held to files that are wanted, on the gateway's or a publisher's own machine.

Blocks for as long as it takes: run it in a worker process. Everything large lies in temporary files, mapped.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.packcodecs import PackedFrame, pack_frame, pack_lzma, pack_stream
from gateway.packextents import BlockIndex
from gateway.packrecipes import RecipeWriter
from protocol.documents import Manifest, ManifestFile, parse_document
from protocol.pack import wanted_files
from protocol.pack.containers import VIEWS, Kind, parse, view_of
from protocol.pack.cursor import READ_BYTES, varint
from protocol.pack.decoder import list_held, order_wanted
from protocol.pack.frames import HELD_BYTES_MAX, Codec
from protocol.pack.index import VERSIONS, BaseView, Extent, FrameEntry, Index
from protocol.pack.manifests import encode_delta
from protocol.pack.profile import Profile, own_profile
from store.heldviews import FileSource

FRAME_BYTES = 16 << 20
GATHERED_BYTES = 8 << 20
PREFIX_BYTES = 48 << 20
SMALL_FRAME_BYTES = 4 << 20
_ALIKE_RATIO = 50

Progress = Callable[[int, int], None]
"""Told (bytes done, bytes in all) as frames are packed."""


@dataclass(frozen=True, slots=True)
class Update:
    """What an update needs: the files that the pack carries, all digests that are held, and the old manifest's files.

    The order of `held` is the same on the truck: packs and manifests name held files by their number in it.
    """

    wanted: tuple[ManifestFile, ...]
    held: tuple[bytes, ...]
    old: tuple[ManifestFile, ...]


def plan_update(signed: bytes, held: Sequence[bytes]) -> Update:
    """Return what leads to a signed manifest from signed manifests that are held, the nearest one first."""
    manifest, _ = parse_document(signed, Manifest)
    before = [parse_document(each, Manifest)[0].files for each in held]
    digests = list_held(before)
    return Update(wanted_files(manifest, digests), digests, before[0] if before else ())


def pack_manifest(signed: bytes, update: Update) -> bytes:
    """Return a signed manifest as it travels: what changed, without digests that the truck works out."""
    return pack_stream(encode_delta(signed, update.old, update.held))


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    view: BaseView


def encode(
    wanted: Sequence[tuple[ManifestFile, Path]],
    held: Sequence[Path],
    *,
    profile: Profile | None = None,
    views: int = VIEWS,
    progress: Progress = lambda *_: None,
) -> Iterator[bytes]:
    """Yield the pack that leads from the held files to the wanted ones, its index first.

    `profile` is the truck's (None: the same as this machine's), `views` the set that it knows. A held file that is not
    here is not stood on.
    """
    truck, own = profile or own_profile(), own_profile()
    views = min(views, VIEWS)
    writer = RecipeWriter(deflate=truck.deflate == own.deflate, zstd=truck.zstd == own.zstd, views=views)
    with tempfile.TemporaryFile() as base_file, tempfile.TemporaryFile() as view_file:
        pieces = _write_base(held, base_file, views)
        recipes, sizes = _write_views(wanted, writer, view_file)
        base, view = _mapped(base_file), _mapped(view_file)
        yield bytes([VERSIONS[views]])
        yield from _encode(base, view, pieces, recipes, _slices(sizes), truck.ppmd, progress)


def _encode(
    base: memoryview,
    view: memoryview,
    pieces: list[_Piece],
    recipes: bytes,
    slices: Sequence[int],
    ppmd: bool,
    progress: Progress,
) -> Iterator[bytes]:
    blocks = BlockIndex(base)
    frames: list[_Frame] = []
    packer = _Packer(base, blocks, ppmd=ppmd)
    done = 0
    for size in slices:
        frames += packer.pack(bytes(view[done : done + size]))
        done += size
        progress(done, len(view))
    used, moved = _used(pieces, [frame.extents for frame in frames])
    entries = [
        FrameEntry(frame.packed.codec, frame.size, len(frame.packed.body), tuple(moved(each) for each in frame.extents))
        for frame in frames
    ]
    index = Index(tuple(used), tuple(entries), recipes).encode()
    packed = pack_lzma(index)
    yield varint(len(packed)) + varint(len(index)) + packed
    for frame in frames:
        yield frame.packed.body


@dataclass(frozen=True, slots=True)
class _Frame:
    packed: PackedFrame
    size: int
    extents: tuple[Extent, ...]


class _Packer:
    """Packs slices of the stream: as one frame each, or as several where unlike things lie side by side."""

    def __init__(self, base: memoryview, blocks: BlockIndex, *, ppmd: bool) -> None:
        self._base = base
        self._blocks = blocks
        self._ppmd = ppmd

    def pack(self, data: bytes) -> list[_Frame]:
        """Return the smallest frames that hold `data`."""
        whole = self._frame(data, PREFIX_BYTES)
        # What packs this well is all alike: smaller frames would only lose at their edges.
        if len(data) <= SMALL_FRAME_BYTES or len(whole.packed.body) * _ALIKE_RATIO < len(data):
            return [whole]
        parts = [
            self._frame(data[at : at + SMALL_FRAME_BYTES], PREFIX_BYTES // 2)
            for at in range(0, len(data), SMALL_FRAME_BYTES)
        ]
        return parts if sum(len(part.packed.body) for part in parts) < len(whole.packed.body) else [whole]

    def _frame(self, data: bytes, prefix_bytes: int) -> _Frame:
        far, near = self._blocks.extents(data, prefix_bytes), self._blocks.extents(data, HELD_BYTES_MAX - len(data))
        frame = pack_frame(data, _joined(self._base, far), _joined(self._base, near), ppmd=self._ppmd)
        return _Frame(frame, len(data), {Codec.DELTA: far, Codec.ZSTD: near}.get(frame.codec, ()))


def _joined(base: memoryview, extents: Sequence[Extent]) -> bytes:
    return b"".join(bytes(base[each.offset : each.offset + each.length]) for each in extents)


def _write_base(held: Sequence[Path], out: BinaryIO, views: int) -> list[_Piece]:
    """Lay every held file and the view of every held container end to end."""
    pieces = []
    at = 0
    for number, place in enumerate(held):
        if not place.exists():
            continue
        size = place.stat().st_size
        with place.open("rb") as file:
            source = FileSource(file, size)
            found = parse(source, views=views)
            # A database is like another one cell by cell; its pages would only draw a frame's likeness apart.
            if found is None or found[0] is not Kind.SQLITE:
                for chunk in _chunks(file):
                    out.write(chunk)
                pieces.append(_Piece(at, at + size, BaseView(number, None)))
                at += size
            if found is not None:
                opened = 0
                for chunk in view_of(source, found[1], views=views):
                    out.write(chunk)
                    opened += len(chunk)
                pieces.append(_Piece(at, at + opened, BaseView(number, opened)))
                at += opened
    return pieces


def _write_views(
    wanted: Sequence[tuple[ManifestFile, Path]], writer: RecipeWriter, out: BinaryIO
) -> tuple[bytes, list[int]]:
    """Lay the views of the wanted files end to end, in the order of the pack; return their recipes and sizes."""
    places = {file.path: place for file, place in wanted}
    recipes = bytearray()
    sizes: list[int] = []
    at = 0
    for file in order_wanted([file for file, _ in wanted]):
        with places[file.path].open("rb") as stream:
            opened = writer.open(FileSource(stream, file.size))
            if opened is None:
                recipes += varint(Kind.PLAIN)
                stream.seek(0)
                for chunk in _chunks(stream):
                    out.write(chunk)
            else:
                recipes += varint(opened.kind) + opened.recipe
                out.write(opened.view)
        sizes.append(out.tell() - at)
        at = out.tell()
    return bytes(recipes), sizes


def _slices(sizes: Sequence[int]) -> list[int]:
    """Return the sizes of frames: small files share one, a large file has its own."""
    out: list[int] = []
    gathered = 0
    for size in sizes:
        if size >= SMALL_FRAME_BYTES or gathered + size > GATHERED_BYTES:
            out.append(gathered)
            gathered = 0
        gathered += size
        while gathered > GATHERED_BYTES or size >= SMALL_FRAME_BYTES <= gathered:
            out.append(min(gathered, FRAME_BYTES))
            gathered -= out[-1]
    return [size for size in (*out, gathered) if size]


def _used(
    pieces: Sequence[_Piece], prefixes: Iterable[Sequence[Extent]]
) -> tuple[list[BaseView], Callable[[Extent], Extent]]:
    """Return the views that some prefix touches, and how a stretch of all views moves to a stretch of those."""
    extents = sorted({extent for extents in prefixes for extent in extents}, key=lambda each: each.offset)
    used: list[BaseView] = []
    starts: list[tuple[int, int, int]] = []  # (start, end) among all views, start among the used
    at = 0
    number = 0
    touched = _merged(extents)
    for piece in pieces:
        while number < len(touched) and touched[number][1] <= piece.start:
            number += 1
        if number < len(touched) and touched[number][0] < piece.end:
            used.append(piece.view)
            starts.append((piece.start, piece.end, at))
            at += piece.end - piece.start

    def moved(extent: Extent) -> Extent:
        for start, end, place in starts:
            if start <= extent.offset < end:
                return Extent(place + extent.offset - start, extent.length)
        raise AssertionError("a stretch lies in the views that it touches")

    return used, moved


def _merged(extents: Sequence[Extent]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for extent in extents:
        end = extent.offset + extent.length
        if out and extent.offset <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((extent.offset, end))
    return out


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(READ_BYTES):
        yield chunk


def _mapped(file: BinaryIO) -> memoryview:
    file.flush()
    size = file.seek(0, 2)
    return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"")

"""A pack and what is held become the wanted files' bytes again, one frame in memory at a time.

Nothing is believed of a pack but what the manifest's own sizes and digests confirm: the caller hashes every file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Protocol

from protocol.documents import ManifestFile
from protocol.errors import MalformedError
from protocol.pack.containers import Kind, kind_of, rebuild
from protocol.pack.cursor import Cursor, Reader
from protocol.pack.frames import unpack
from protocol.pack.index import BaseView, Extent, Index, read_index


class Held(Protocol):
    """The views of what is held, as the truck's disk has them."""

    def size(self, view: BaseView) -> int:
        """Return the size of a view (bytes); raise `MalformedError` for one that is not held, or is not that size."""

    def read(self, view: BaseView, offset: int, length: int) -> bytes:
        """Return a stretch of a view; the caller keeps within its size."""


def order_wanted(files: Sequence[ManifestFile]) -> tuple[ManifestFile, ...]:
    """Return files in the order of a pack: like beside like, so that frames hold what has much in common."""
    return tuple(sorted(files, key=lambda file: (_suffix(file.path), file.path)))


def list_held(manifests: Sequence[Sequence[ManifestFile]]) -> tuple[bytes, ...]:
    """Return the digests of all that is held, in the order in which packs number them: as packs order files."""
    found: dict[bytes, None] = {}
    for files in manifests:
        for file in order_wanted(files):
            if file.size:
                found.setdefault(file.digest)
    return tuple(found)


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[2] if "." in name else ""


def decode_files(
    read: Callable[[int], bytes], wanted: Sequence[ManifestFile], held: Held
) -> Iterator[tuple[ManifestFile, Iterator[bytes]]]:
    """Yield each wanted file, in the order of the pack, with its bytes in pieces; read one file out before the next.

    Raises `MalformedError` before more is held or yielded than the manifest allows.
    """
    stream = Reader(read)
    index = read_index(stream)
    view = _View(stream, index, held)
    reader = Reader(view.read)
    recipes = Cursor(index.recipes)
    for file in order_wanted(wanted):
        kind = kind_of(recipes.varint(max(Kind)))
        yield file, _sized(rebuild(kind, recipes, reader, file.size), file)
    if recipes.left or view.left:
        raise MalformedError("the pack holds more than the manifest asks for")


def _sized(pieces: Iterator[bytes], file: ManifestFile) -> Iterator[bytes]:
    left = file.size
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise MalformedError(f"{file.path} comes out larger than was signed")
        yield piece
    if left:
        raise MalformedError(f"{file.path} comes out smaller than was signed")


class _View:
    """The logical stream: frames decoded one after the other as they are read."""

    def __init__(self, stream: Reader, index: Index, held: Held) -> None:
        self._stream = stream
        self._frames = iter(index.frames)
        self._base = Base(index.base, held)
        self._frame = memoryview(b"")
        self.left = sum(frame.size for frame in index.frames)

    def read(self, count: int) -> bytes:
        """Return the next bytes of the stream, fewer at its end."""
        out = bytearray()
        while len(out) < count:
            if not self._frame and not self._next():
                break
            part = self._frame[: count - len(out)]
            self._frame = self._frame[len(part) :]
            out += part
        self.left -= len(out)
        return bytes(out)

    def _next(self) -> bool:
        frame = next(self._frames, None)
        if frame is None:
            return False
        self._frame = memoryview(b"")
        prefix = Joined(self._base, frame.extents)
        self._frame = memoryview(unpack(frame.codec, self._stream.exactly(frame.packed), prefix, frame.size))
        return True


class Base:
    """The views that a pack stands on, laid end to end."""

    def __init__(self, views: Sequence[BaseView], held: Held) -> None:
        self._held = held
        self._views: list[tuple[int, int, BaseView]] = []
        at = 0
        for view in views:
            size = held.size(view)
            self._views.append((at, at + size, view))
            at += size
        self._ends = [end for _, end, _ in self._views]
        self._size = at

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._size

    def pieces(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield a stretch of the base, view by view."""
        end = offset + length
        for start, stop, view in islice(self._views, bisect_right(self._ends, offset), None):
            if start >= end:
                return
            low, high = max(offset, start), min(end, stop)
            if low < high:
                yield self._held.read(view, low - start, high - low)


class Joined:
    """Stretches of the base as one prefix."""

    def __init__(self, base: Base, extents: Sequence[Extent]) -> None:
        self._base = base
        self._extents = extents
        if any(extent.offset + extent.length > base.size for extent in extents):
            raise MalformedError("a frame stands on more than is held")
        self._starts = list(accumulate((extent.length for extent in extents), initial=0))

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._starts[-1]

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`."""
        out: list[bytes] = []
        number = bisect_right(self._starts, offset) - 1
        while length:
            extent = self._extents[number]
            skip = offset - self._starts[number]
            part = min(length, extent.length - skip)
            out += self._base.pieces(extent.offset + skip, part)
            offset, length, number = offset + part, length - part, number + 1
        return b"".join(out)

"""The index of a pack: what of the held content it stands on, its frames, and the recipes of the files.

A pack is: the version (one byte), the length of the packed index, the index as an LZMA stream with its size, then the
bodies of the frames. All numbers are varints. The base is a row of views laid end to end; a frame's prefix is made of
stretches (extents) of that row.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import MalformedError
from protocol.numbers import BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX
from protocol.pack.cursor import Cursor, Reader, blob, unzigzag, varint, zigzag
from protocol.pack.frames import DELTA_PREFIX_BYTES_MAX, FRAME_BYTES_MAX, Codec, unlzma

# By the set of views that a pack was made with (`protocol.pack.containers.VIEWS`).
VERSIONS = (2, 3)
INDEX_BYTES_MAX = 8 << 20
_FRAMES_MAX = 1 << 20
_EXTENTS_MAX = 1 << 12
_PLACE_MAX = 1 << 42


@dataclass(frozen=True, slots=True)
class BaseView:
    """One piece of the base: the number of a held object, and the size of its view if it is opened, else None.

    `views` is the set that the view is of.
    """

    number: int
    opened_size: int | None
    views: int = 0


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of the base (bytes)."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class FrameEntry:
    """One frame: how it is packed, its size and packed size, and what its prefix is made of."""

    codec: Codec
    size: int
    packed: int
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """All that must be known before the first frame is decoded."""

    base: tuple[BaseView, ...]
    frames: tuple[FrameEntry, ...]
    recipes: bytes

    def encode(self) -> bytes:
        """Return the index, not yet packed."""
        out = bytearray(varint(len(self.base)))
        last = -1
        for view in self.base:
            # A raw view follows the one before it in the list of held objects, mostly: that is one zero byte.
            out += varint(zigzag(view.number - last - 1))
            out += varint(0 if view.opened_size is None else view.opened_size + 1)
            last = view.number
        out += varint(len(self.frames))
        for frame in self.frames:
            out += bytes([frame.codec]) + varint(frame.size) + varint(frame.packed) + varint(len(frame.extents))
            at = 0
            for extent in frame.extents:
                out += varint(zigzag(extent.offset - at)) + varint(extent.length)
                at = extent.offset + extent.length
        return bytes(out + blob(self.recipes))


def read_index(stream: Reader) -> Index:
    """Return the index at the head of a pack; raise `MalformedError`."""
    version = stream.byte()
    if version not in VERSIONS:
        raise MalformedError(f"a pack of version {version}, which this software does not know")
    packed, size = stream.varint(INDEX_BYTES_MAX), stream.varint(INDEX_BYTES_MAX)
    return _decode(Cursor(unlzma(stream.exactly(packed), size)), VERSIONS.index(version))


def _decode(fields: Cursor, views: int) -> Index:
    base = []
    number = -1
    for _ in range(fields.varint(2 * BUNDLE_FILES_MAX)):
        number += 1 + unzigzag(fields.varint(8 * BUNDLE_FILES_MAX))
        size = fields.varint(BUNDLE_BYTES_MAX)
        base.append(BaseView(number, size - 1 if size else None, views))
    frames = []
    for _ in range(fields.varint(_FRAMES_MAX)):
        codec, size, packed = fields.byte(), fields.varint(FRAME_BYTES_MAX), fields.varint(FRAME_BYTES_MAX)
        if codec > max(Codec) or not size or not packed:
            raise MalformedError("a frame of a kind that this software does not know")
        extents = []
        at = 0
        for _ in range(fields.varint(_EXTENTS_MAX)):
            offset = at + unzigzag(fields.varint(_PLACE_MAX))
            length = fields.varint(DELTA_PREFIX_BYTES_MAX)
            if offset < 0:
                raise MalformedError("a frame's prefix lies before all that is held")
            extents.append(Extent(offset, length))
            at = offset + length
        if sum(extent.length for extent in extents) > DELTA_PREFIX_BYTES_MAX:
            raise MalformedError("a frame's prefix is larger than a truck can hold")
        frames.append(FrameEntry(Codec(codec), size, packed, tuple(extents)))
    recipes = fields.blob(INDEX_BYTES_MAX)
    if fields.left:
        raise MalformedError("bytes follow the index of the pack")
    return Index(tuple(base), tuple(frames), recipes)

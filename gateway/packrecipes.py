"""Wanted files opened: the view of a container and the recipe that closes it again.

A recipe is only given out when it makes the container's very bytes; everything else travels as it lies.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.errors import MalformedError
from protocol.pack.containers import CONTAINERS, VIEWS, Kind, member_content, packed_bytes, parse
from protocol.pack.cursor import BytesSource, Source, blob, varint
from protocol.pack.deflate import DeflationSearch
from protocol.pack.parts import MEMBER_BYTES_HELD, Inner, Member, Method, Packed
from protocol.pack.zstds import repack

_ZSTD_MISSES_MAX = 3
# Levels that archives are made with, the usual one first; with and without the size in the frame.
_ZSTD_CODES = tuple(1 + level + 23 * style for level in (19, 22, 3, 21, 15) for style in (0, 1))


@dataclass(frozen=True, slots=True)
class Opened:
    """A file as packs carry it: its kind, the recipe (after the kind) and its view."""

    kind: Kind
    recipe: bytes
    view: bytes


class RecipeWriter:
    """Opens files; what worked for one is tried first on the next."""

    def __init__(self, *, deflate: bool = True, zstd: bool = True, views: int = VIEWS) -> None:
        """Say which libraries give the same bytes on the truck as here, and which set of views it knows."""
        self._views = views
        self._deflate = deflate
        self._zstd = zstd
        self._deflations = DeflationSearch()
        self._zstd_codes = list(_ZSTD_CODES)
        self._zstd_misses = 0

    def open(self, source: Source, depth: int = 0, inner: Inner | None = None) -> Opened | None:
        """Return a file opened, or None where it is its own view."""
        found = parse(source, depth, inner, views=self._views)
        if found is None:
            return None
        kind, parsed = found
        recipe, view = bytearray(), bytearray(blob(parsed.meta))
        known = [self._member(source, member, depth, recipe, view) for member in parsed.members]
        try:
            made = b"".join(CONTAINERS[kind].rebuild(parsed.meta, _Known(known)))
        except MalformedError:
            return None
        return Opened(kind, bytes(recipe), bytes(view)) if made == source.read(0, source.size) else None

    def _member(self, source: Source, member: Member, depth: int, recipe: bytearray, view: bytearray) -> Packed:
        packed = b"".join(packed_bytes(source, member))
        try:
            content: bytes | None = b"".join(member_content(source, member))
        except MalformedError:
            content = None
        crc, adler = zlib.crc32(content or b""), zlib.adler32(content or b"")
        if member.method is not Method.STORED:
            code = 0 if content is None else self._code(content, packed, member)
            recipe += varint(code)
            if not code:
                recipe += varint(len(packed)) + crc.to_bytes(4, "little") + adler.to_bytes(4, "little")
                view += packed
                return Packed([packed], len(packed), crc, adler)
        if content is None or member.size > MEMBER_BYTES_HELD:
            view += content or b""
            return Packed([packed], None, None)
        opened = self.open(BytesSource(content), depth + 1, member.inner)
        recipe += varint(Kind.PLAIN if opened is None else opened.kind)
        recipe += b"" if opened is None else opened.recipe
        view += content if opened is None else opened.view
        return Packed([packed], len(packed), crc, adler)

    def _code(self, content: bytes, packed: bytes, member: Member) -> int:
        if not (self._deflate if member.method is Method.DEFLATE else self._zstd):
            return 0
        if member.method is Method.DEFLATE:
            how = self._deflations.find(content, packed, window_bits=member.window_bits)
            return 0 if how is None else how.code
        for code in list(self._zstd_codes):
            if b"".join(repack([content], code, len(content))) == packed:
                self._zstd_codes.remove(code)
                self._zstd_codes.insert(0, code)
                self._zstd_misses = 0
                return code
        # An archive that another version of zstd made never matches: that is known after a few of its clusters.
        self._zstd_misses += 1
        self._zstd = self._zstd_misses < _ZSTD_MISSES_MAX
        return 0


class _Known:
    """Members whose packed bytes are at hand: tells whether a container's own part is understood."""

    def __init__(self, members: list[Packed]) -> None:
        self._members: Iterator[Packed] = iter(members)

    def take(self, _method: Method, _size: int, _inner: Inner | None = None) -> Packed:
        """Return the next member."""
        member = next(self._members, None)
        if member is None:
            raise MalformedError("a container asks for more members than it has")
        return member

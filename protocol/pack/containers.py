"""Containers opened: the logical view of a file, in which an edit of the content is a small edit.

The view of a container is its `meta` (with its length in front), then the view of each member in turn: a member's
content, or, where that is a container too, its own view. Both sides compute the view of what is held by the same walk,
so that a pack can name places in it. The way back needs what no one can guess: a recipe, the numbers that say for each
member how it was packed. A recipe is written by `gateway.packing`, which verifies it by running `rebuild`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from itertools import chain

from protocol.errors import MalformedError
from protocol.numbers import BUNDLE_BYTES_MAX
from protocol.pack.cursor import BytesSource, Reader, Source, blob, source_pieces
from protocol.pack.deflate import CODE_MAX, Deflation, deflate, inflate
from protocol.pack.gzips import GzipContainer
from protocol.pack.parts import MEMBER_BYTES_HELD, META_BYTES_MAX, Container, Inner, Member, Method, Packed, Parsed
from protocol.pack.pngs import PngContainer
from protocol.pack.sqlites import SqliteContainer
from protocol.pack.zims import ClusterContainer, ZimContainer
from protocol.pack.zips import ZipContainer
from protocol.pack.zstds import ZSTD_CODE_MAX, expand, repack

HEAD_BYTES = 512
DEPTH_MAX = 4
_CONTAINER_BYTES_MIN = 16
_GROWTH_MAX = 64
_GROWTH_BYTES_FREE = 1 << 20


class Kind(IntEnum):
    """What a recipe opens; 0 is content as it lies."""

    PLAIN = 0
    ZIP = 1
    GZIP = 2
    PNG = 3
    ZIM = 4
    CLUSTER = 5
    WIDE_CLUSTER = 6
    SQLITE = 7


CONTAINERS: dict[Kind, Container] = {
    Kind.ZIP: ZipContainer(),
    Kind.GZIP: GzipContainer(),
    Kind.PNG: PngContainer(),
    Kind.ZIM: ZimContainer(),
    Kind.CLUSTER: ClusterContainer(wide=False),
    Kind.WIDE_CLUSTER: ClusterContainer(wide=True),
    Kind.SQLITE: SqliteContainer(),
}
VIEWS = 1
"""The newest set of views that this software knows: 0 has no databases. Both sides must mean the same by a view."""
_SINCE = {Kind.SQLITE: 1}
_INNER = {Inner.CLUSTER: Kind.CLUSTER, Inner.WIDE_CLUSTER: Kind.WIDE_CLUSTER}


def parse(
    source: Source, depth: int = 0, inner: Inner | None = None, *, views: int = VIEWS
) -> tuple[Kind, Parsed] | None:
    """Return what kind of container this is and its parts, or None for what has no view of its own among `views`."""
    if depth >= DEPTH_MAX or source.size < _CONTAINER_BYTES_MIN:
        return None
    head = source.read(0, min(source.size, HEAD_BYTES))
    kind = _INNER.get(inner) if inner else next((k for k, each in CONTAINERS.items() if each.matches(head)), None)
    if kind is not None and _SINCE.get(kind, 0) > views:
        return None
    parsed = None if kind is None else CONTAINERS[kind].parse(source)
    if kind is None or parsed is None or len(parsed.meta) > META_BYTES_MAX:
        return None
    # A bomb stays shut: what is held was verified, but its author may be clumsy.
    grown = sum(member.size for member in parsed.members) + len(parsed.meta)
    return (kind, parsed) if grown <= _GROWTH_MAX * source.size + _GROWTH_BYTES_FREE else None


def member_content(source: Source, member: Member) -> Iterator[bytes]:
    """Yield a member's content; raise `MalformedError` where it does not unpack to exactly its size."""
    packed = chain.from_iterable(source_pieces(source, offset, length) for offset, length in member.ranges)
    match member.method:
        case Method.STORED:
            return packed
        case Method.DEFLATE:
            return inflate(packed, member.size)
        case Method.ZSTD:
            return expand(packed, member.size)


def packed_bytes(source: Source, member: Member) -> Iterator[bytes]:
    """Yield a member as it lies in the container."""
    return chain.from_iterable(source_pieces(source, offset, length) for offset, length in member.ranges)


def open_view(
    source: Source, depth: int = 0, inner: Inner | None = None, *, views: int = VIEWS
) -> Iterator[bytes] | None:
    """Return the view of a held container in pieces, or None where a file is its own view."""
    found = parse(source, depth, inner, views=views)
    return None if found is None else view_of(source, found[1], depth, views=views)


def view_of(source: Source, parsed: Parsed, depth: int = 0, *, views: int = VIEWS) -> Iterator[bytes]:
    """Yield the view of a container that was taken apart."""
    yield blob(parsed.meta)
    for member in parsed.members:
        if member.size <= MEMBER_BYTES_HELD:
            try:
                content = b"".join(member_content(source, member))
            except MalformedError:
                yield from packed_bytes(source, member)
                continue
            inner = open_view(BytesSource(content), depth + 1, member.inner, views=views)
            yield from (content,) if inner is None else inner
        elif _unpacks(source, member):
            yield from member_content(source, member)
        else:
            yield from packed_bytes(source, member)


def _unpacks(source: Source, member: Member) -> bool:
    try:
        for _ in member_content(source, member):
            pass
    except MalformedError:
        return False
    return True


def rebuild(kind: Kind, recipe: Reader, view: Reader, size: int, depth: int = 0) -> Iterator[bytes]:
    """Yield a file of at most `size` bytes from its view; raise `MalformedError`.

    `recipe` and `view` are read as far as this file goes, and no further.
    """
    if kind is Kind.PLAIN:
        return view.pieces(size)
    if depth >= DEPTH_MAX:
        raise MalformedError("containers within containers, too deep")
    meta = view.blob(META_BYTES_MAX)
    return CONTAINERS[kind].rebuild(meta, _Closing(recipe, view, depth))


class _Closing:
    """Packs members again as a recipe says."""

    def __init__(self, recipe: Reader, view: Reader, depth: int) -> None:
        self._recipe = recipe
        self._view = view
        self._depth = depth

    def take(self, method: Method, size: int, inner: Inner | None = None) -> Packed:
        """Return the next member, packed again; what it is inside is told by the recipe, so `inner` is not needed."""
        if size > BUNDLE_BYTES_MAX:
            raise MalformedError("a member is larger than any file may be")
        repacked: Callable[[Iterable[bytes]], Iterator[bytes]] = iter
        if method is Method.DEFLATE:
            code = self._recipe.varint(CODE_MAX)
            if not code:
                return self._shut()
            how = Deflation.from_code(code)
            repacked = lambda pieces: deflate(pieces, how)  # noqa: E731
        elif method is Method.ZSTD:
            code = self._recipe.varint(ZSTD_CODE_MAX)
            if not code:
                return self._shut()
            repacked = lambda pieces: repack(pieces, code, size)  # noqa: E731
        if size > MEMBER_BYTES_HELD:
            return Packed(repacked(self._view.pieces(size)), None, None)
        kind = kind_of(self._recipe.varint(max(Kind)))
        content = bounded(rebuild(kind, self._recipe, self._view, size, self._depth + 1), size)
        packed = content if method is Method.STORED else b"".join(repacked([content]))
        return Packed([packed], len(packed), zlib.crc32(content), zlib.adler32(content))

    def _shut(self) -> Packed:
        """Return a member that is carried as it lies: its packed size and its sums are told."""
        length = self._recipe.varint(BUNDLE_BYTES_MAX)
        crc = int.from_bytes(self._recipe.exactly(4), "little")
        adler = int.from_bytes(self._recipe.exactly(4), "little")
        return Packed(self._view.pieces(length), length, crc, adler)


def kind_of(number: int) -> Kind:
    """Return a recipe's kind; raise `MalformedError`."""
    try:
        return Kind(number)
    except ValueError as error:
        raise MalformedError("a recipe opens what this software does not know") from error


def bounded(pieces: Iterable[bytes], size: int) -> bytes:
    """Return pieces of exactly `size` bytes in all; raise `MalformedError` as soon as there are more."""
    out = bytearray()
    for piece in pieces:
        out += piece
        if len(out) > size:
            raise MalformedError("a member comes out larger than was said")
    if len(out) != size:
        raise MalformedError("a member comes out smaller than was said")
    return bytes(out)

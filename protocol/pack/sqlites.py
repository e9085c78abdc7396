"""A SQLite database (the file format, section 1), page by page: its view is the cells of all pages, in order of keys.

A row that grows moves all that follows it within its page, and whole rows to other pages; the cells themselves stay
what they are. So an edit of some rows is a small edit of the view. What pages add is in `meta`, in sections of one
kind, since it is alike from page to page. Pages that are no b-tree's (and odd ones) are carried as they lie.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from protocol.errors import MalformedError
from protocol.pack.cursor import Cursor, Source, blob, varint
from protocol.pack.parts import META_BYTES_MAX, Member, Members, Method, Parsed
from protocol.pack.sqlitepages import Sections, put_together, take_apart

_MAGIC = b"SQLite format 3\0"
_HEAD_BYTES = 100
_BYTES_MAX = 256 << 20
_PAGES_MAX = _BYTES_MAX // 512


class Ranges(Sequence[tuple[int, int]]):
    """Places (offset, length) of many cells, in eight bytes each."""

    def __init__(self) -> None:
        self._offsets = array("I")
        self._lengths = array("I")

    def add(self, offset: int, length: int) -> None:
        """Add a place, to the one before it if it follows there."""
        if self._offsets and self._offsets[-1] + self._lengths[-1] == offset:
            self._lengths[-1] += length
        else:
            self._offsets.append(offset)
            self._lengths.append(length)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, at: int) -> tuple[int, int]: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[tuple[int, int]]: ...

    def __getitem__(self, at: int | slice) -> tuple[int, int] | Sequence[tuple[int, int]]:
        if isinstance(at, slice):
            return list(zip(self._offsets[at], self._lengths[at], strict=True))
        return self._offsets[at], self._lengths[at]

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self._lengths)


class SqliteContainer:
    """Opens and closes databases."""

    def matches(self, head: bytes) -> bool:
        """Return whether `head` begins a database without reserved space on its pages."""
        return head.startswith(_MAGIC) and len(head) >= _HEAD_BYTES and head[20] == 0 and _page_size(head) is not None

    def parse(self, source: Source) -> Parsed | None:
        """Return the cells of all pages as one member, or None."""
        size = _page_size(source.read(0, _HEAD_BYTES))
        if size is None or source.size % size or source.size > _BYTES_MAX:
            return None
        ranges = Ranges()
        sections = [bytearray() for _ in range(6)]
        for start in range(0, source.size, size):
            data = source.read(start, size)
            page = take_apart(data, 0 if start else _HEAD_BYTES) if len(data) == size else None
            if page is None:
                sections[0].append(0)
                ranges.add(start, size)
                continue
            for section, told in zip(sections, page.told, strict=True):
                section += told
            for offset, length in page.cells:
                if length:
                    ranges.add(start + offset, length)
        if not sections[0] or not sections[0][0]:
            return None
        meta = varint(size) + varint(source.size // size) + varint(ranges.total) + source.read(0, _HEAD_BYTES)
        meta += b"".join(blob(bytes(section)) for section in sections)
        return Parsed(meta, (Member(ranges, Method.STORED, ranges.total),))

    def rebuild(self, meta: bytes, members: Members) -> Iterator[bytes]:
        """Yield the database again, page by page."""
        fields = Cursor(meta)
        size, pages = fields.varint(65_536), fields.varint(_PAGES_MAX)
        total = fields.varint(_BYTES_MAX)
        head = fields.exactly(_HEAD_BYTES)
        if size != _page_size(head):
            raise MalformedError("a database of pages of a size that does not exist")
        kinds, *others = (fields.blob(META_BYTES_MAX) for _ in range(6))
        if fields.left or len(kinds) != pages:
            raise MalformedError("the parts of a database do not add up")
        sections = Sections(*map(Cursor, others))
        cells = _Stream(members.take(Method.STORED, total).pieces)
        for number, told in enumerate(kinds):
            if told:
                yield put_together(told, size, b"" if number else head, sections, cells.read)
            else:
                yield cells.read(size)
        if cells.left() or any(
            each.left for each in (sections.counts, sections.children, sections.orders, sections.extras, sections.junk)
        ):
            raise MalformedError("the parts of a database do not add up")


class _Stream:
    """Bytes in their order out of pieces of any size."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = b""
        self._at = 0

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes; raise `MalformedError` when there are fewer."""
        if self._at + count <= len(self._piece):
            self._at += count
            return self._piece[self._at - count : self._at]
        out = bytearray(self._piece[self._at :])
        while len(out) < count:
            piece = next(self._pieces, None)
            if piece is None:
                raise MalformedError("a database ends early")
            self._piece, self._at = piece, min(len(piece), count - len(out))
            out += piece[: self._at]
        return bytes(out)

    def left(self) -> bool:
        """Return whether anything was not read."""
        return self._at < len(self._piece) or any(self._pieces)


def _page_size(head: bytes) -> int | None:
    size = int.from_bytes(head[16:18], "big")
    size = 65_536 if size == 1 else size
    return size if 512 <= size <= 65_536 and not size & (size - 1) else None

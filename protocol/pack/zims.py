"""A ZIM archive (openZIM format, major version 5 and 6): clusters of blobs, most of them zstd frames.

`meta` holds everything that is not in a cluster; lists of ascending pointers are told by their differences, and the
pointers to the clusters are derived where the list stands behind them. Each cluster is a container of its own
(`ClusterContainer`): the lengths of its blobs, then the blobs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise

from protocol.errors import MalformedError
from protocol.pack.cursor import Cursor, Source, blob, source_pieces, varint
from protocol.pack.parts import META_BYTES_MAX, Inner, Member, Members, Method, Parsed
from protocol.pack.zstds import unpacked_size

_HEADER = struct.Struct("<I2H16s2I4Q2IQ")
_MAGIC = 0x044D495A
_CLUSTERS_MAX = 1 << 20
_ENTRIES_MAX = 1 << 22
_ZSTD, _PLAIN = 5, 1
_EXTENDED = 0x10


class ZimContainer:
    """Opens and closes ZIM archives."""

    def matches(self, head: bytes) -> bool:
        """Return whether `head` opens a ZIM archive."""
        return head[:4] == _MAGIC.to_bytes(4, "little")

    def parse(self, source: Source) -> Parsed | None:
        """Return what is around the clusters, and the clusters by place, or None."""
        if source.size < _HEADER.size:
            return None
        (_, _, _, _, entries, clusters, urls, _, pointers_at, _, _, _, checksum_at) = _HEADER.unpack(
            source.read(0, _HEADER.size)
        )
        if not 0 < clusters <= _CLUSTERS_MAX or entries > _ENTRIES_MAX:
            return None
        if max(pointers_at + 8 * clusters, urls + 8 * entries, checksum_at) > source.size:
            return None
        pointers = struct.unpack(f"<{clusters}Q", source.read(pointers_at, 8 * clusters))
        # Where the clusters end is not written down: a list or the checksum that follows them is the next thing known.
        if list(pointers) != sorted(set(pointers)) or pointers[0] < _HEADER.size:
            return None
        marks = [at for at in (pointers_at, urls, checksum_at) if at > pointers[-1]]
        first_dirent = _first_dirent(source, urls, entries, pointers[-1])
        last = min([*marks, *first_dirent], default=source.size)
        derived = pointers_at >= last
        if pointers[-1] >= last or last > source.size or source.size - (last - pointers[0]) > META_BYTES_MAX:
            return None
        before = _Region(source.read(0, pointers[0]), 0)
        after = _Region(source.read(last, source.size - last), last)
        regions = (before, after)
        fields = [pointers[0], last, urls, entries, pointers_at, clusters, int(derived)]
        _write_gaps(regions, urls, entries)
        if derived:
            after.clear(pointers_at, 8 * clusters)
        else:
            _write_gaps(regions, pointers_at, clusters)
        members = []
        infos = bytearray()
        for at, end in zip(pointers, [*pointers[1:], last], strict=True):
            info = source.read(at, 1)[0]
            infos.append(info)
            members.append(_member(source, at, end, info))
        sizes = b"".join(varint(member.size) for member in members)
        meta = b"".join(varint(field) for field in fields)
        meta += bytes(infos) + blob(bytes(before.data)) + blob(bytes(after.data)) + sizes
        methods = bytes(member.method for member in members)
        return Parsed(meta + methods, tuple(members))

    def rebuild(self, meta: bytes, members: Members) -> Iterator[bytes]:
        """Yield the archive again."""
        fields = Cursor(meta)
        first, last, urls = (fields.varint(1 << 48) for _ in range(3))
        entries, pointers_at, clusters = (
            fields.varint(_ENTRIES_MAX),
            fields.varint(1 << 48),
            fields.varint(_CLUSTERS_MAX),
        )
        derived = fields.varint(1)
        infos = fields.exactly(clusters)
        regions = (_Region(fields.blob(META_BYTES_MAX), 0), _Region(fields.blob(META_BYTES_MAX), last))
        sizes = [fields.varint(1 << 40) for _ in range(clusters)]
        methods = fields.exactly(clusters)
        if len(regions[0].data) != first:
            raise MalformedError("a ZIM archive whose clusters do not begin where it says")
        _read_gaps(regions, urls, entries)
        if not derived:
            _read_gaps(regions, pointers_at, clusters)
        yield bytes(regions[0].data)
        at = first
        pointers = []
        for info, size, method in zip(infos, sizes, methods, strict=True):
            if method not in (Method.STORED, Method.ZSTD):
                raise MalformedError("a ZIM cluster packed in an unknown way")
            pointers.append(at)
            yield bytes([info])
            inner = _inner(info)
            at += 1
            for piece in members.take(Method(method), size, inner).pieces:
                at += len(piece)
                yield piece
        if at != last:
            raise MalformedError("a ZIM archive whose clusters do not end where it says")
        if derived:
            regions[1].put(pointers_at, struct.pack(f"<{clusters}Q", *pointers))
        yield bytes(regions[1].data)


class ClusterContainer:
    """A cluster unpacked: offsets of blobs, then the blobs, each a member. `wide` offsets have 8 bytes."""

    def __init__(self, *, wide: bool) -> None:
        self._width = 8 if wide else 4
        self._code = "Q" if wide else "I"

    def matches(self, _head: bytes) -> bool:
        """Return False: a cluster is known by its place in an archive, not by its bytes."""
        return False

    def parse(self, source: Source) -> Parsed | None:
        """Return the lengths of the blobs and where they are, or None."""
        if source.size < self._width:
            return None
        first = int.from_bytes(source.read(0, self._width), "little")
        if first % self._width or not first or first > min(source.size, META_BYTES_MAX):
            return None
        offsets = struct.unpack(f"<{first // self._width}{self._code}", source.read(0, first))
        if list(offsets) != sorted(offsets) or offsets[-1] != source.size:
            return None
        lengths = [end - start for start, end in pairwise(offsets)]
        meta = varint(len(lengths)) + b"".join(varint(length) for length in lengths)
        members = (Member(((at, length),), Method.STORED, length) for at, length in zip(offsets, lengths, strict=False))
        return Parsed(meta, tuple(members))

    def rebuild(self, meta: bytes, members: Members) -> Iterator[bytes]:
        """Yield the cluster again."""
        fields = Cursor(meta)
        lengths = [fields.varint(1 << 40) for _ in range(fields.varint(_ENTRIES_MAX))]
        offsets = [(len(lengths) + 1) * self._width]
        for length in lengths:
            offsets.append(offsets[-1] + length)
        try:
            yield struct.pack(f"<{len(offsets)}{self._code}", *offsets)
        except struct.error as error:
            raise MalformedError("a ZIM cluster is too large for its offsets") from error
        for length in lengths:
            yield from members.take(Method.STORED, length).pieces


class _Region:
    """A stretch of the archive that is told, and where it stands."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = bytearray(data)
        self._at = at

    def holds(self, at: int, length: int) -> bool:
        return self._at <= at and at + length <= self._at + len(self.data)

    def get(self, at: int, length: int) -> bytes:
        return bytes(self.data[at - self._at : at - self._at + length])

    def put(self, at: int, data: bytes) -> None:
        if not self.holds(at, len(data)):
            raise MalformedError("a ZIM archive with a list outside of itself")
        self.data[at - self._at : at - self._at + len(data)] = data

    def clear(self, at: int, length: int) -> None:
        self.put(at, bytes(length))


def _member(source: Source, at: int, end: int, info: int) -> Member:
    packed = end - at - 1
    whole = ((at + 1, packed),)
    if info & 15 == _ZSTD:
        size = unpacked_size(source_pieces(source, at + 1, packed), most=64 * packed + (1 << 20))
        if size is not None:
            return Member(whole, Method.ZSTD, size, inner=_inner(info))
    return Member(whole, Method.STORED, packed, inner=_inner(info) if info & 15 <= _PLAIN else None)


def _inner(info: int) -> Inner | None:
    if info & 15 not in (0, _PLAIN, _ZSTD):
        return None
    return Inner.WIDE_CLUSTER if info & _EXTENDED else Inner.CLUSTER


def _first_dirent(source: Source, urls: int, entries: int, after: int) -> list[int]:
    if not entries:
        return []
    pointers = struct.unpack(f"<{entries}Q", source.read(urls, 8 * entries))
    return [min((at for at in pointers if at > after), default=source.size)]


def _gaps(values: Sequence[int]) -> list[int]:
    return [(value - before) & 0xFFFFFFFFFFFFFFFF for before, value in zip([0, *values], values, strict=False)]


def _write_gaps(regions: tuple[_Region, _Region], at: int, count: int) -> None:
    for region in regions:
        if region.holds(at, 8 * count):
            values = struct.unpack(f"<{count}Q", region.get(at, 8 * count))
            region.put(at, struct.pack(f"<{count}Q", *_gaps(values)))


def _read_gaps(regions: tuple[_Region, _Region], at: int, count: int) -> None:
    for region in regions:
        if region.holds(at, 8 * count):
            values = []
            value = 0
            for gap in struct.unpack(f"<{count}Q", region.get(at, 8 * count)):
                value = (value + gap) & 0xFFFFFFFFFFFFFFFF
                values.append(value)
            region.put(at, struct.pack(f"<{count}Q", *values))

"""A zip file (APPNOTE 6.3) and its kin: EPUB, wheel, H5P, jar, docx.

`meta` holds the central directory by columns, each field of all members together, since a field hardly changes from
one member to the next. Checksums, packed sizes and offsets are derived from the members. Local headers are told only
where they differ from what the directory says. Deliberately absent: ZIP64 and multi-volume files, which stay shut.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from protocol.errors import MalformedError
from protocol.pack.cursor import Cursor, Source, blob, varint
from protocol.pack.parts import MEMBER_BYTES_HELD, META_BYTES_MAX, Member, Members, Method, Packed, Parsed

_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_SIGNATURE, _ENTRY_SIGNATURE, _END_SIGNATURE = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_DESCRIPTOR_SIGNATURE = b"PK\x07\x08"
_END_BYTES_MAX = _END.size + 0xFFFF
_DIRECTORY_BYTES_MAX = 16 << 20
_MEMBERS_MAX = 0xFFFF

_SUMS_TOLD, _SUMS_LATER, _LOCAL_EXTRA, _LOCAL_TOLD, _GAP = 1, 2, 4, 8, 16
_DESCRIPTOR_SHIFT = 5  # 0 none, 1 with signature, 2 without
_FLAGS_MAX = 0x7F

# The fields of a directory entry that `meta` tells, by their width in bytes.
_FIELDS = ("made", "needed", "bits", "method", "time", "date", "disk", "internal")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One member as the directory has it, and how its local header differs."""

    made: int
    needed: int
    bits: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    disk: int
    internal: int
    external: int
    offset: int
    name: bytes
    extra: bytes
    comment: bytes
    flags: int = 0
    told: bytes = b""  # the local extra field, or the whole local header
    gap: bytes = b""

    @property
    def descriptor(self) -> int:
        return self.flags >> _DESCRIPTOR_SHIFT

    def directory(self) -> bytes:
        fixed = _ENTRY.pack(
            _ENTRY_SIGNATURE, self.made, self.needed, self.bits, self.method, self.time, self.date,
            self.crc, self.packed, self.size, len(self.name), len(self.extra), len(self.comment),
            self.disk, self.internal, self.external, self.offset,
        )  # fmt: skip
        return fixed + self.name + self.extra + self.comment

    def local(self) -> bytes:
        if self.flags & _LOCAL_TOLD:
            return self.told
        extra = self.told if self.flags & _LOCAL_EXTRA else self.extra
        sums = (0, 0, 0) if self.flags & _SUMS_LATER else (self.crc, self.packed, self.size)
        fixed = _LOCAL.pack(
            _LOCAL_SIGNATURE, self.needed, self.bits, self.method, self.time, self.date,
            *sums, len(self.name), len(extra),
        )  # fmt: skip
        return fixed + self.name + extra

    def trailer(self) -> bytes:
        sums = struct.pack("<3I", self.crc, self.packed, self.size)
        return (b"", _DESCRIPTOR_SIGNATURE + sums, sums)[self.descriptor]


class ZipContainer:
    """Opens and closes zip files."""

    def matches(self, head: bytes) -> bool:
        """Return whether `head` opens a zip file."""
        return head[:4] == _LOCAL_SIGNATURE

    def parse(self, source: Source) -> Parsed | None:
        """Return the directory and the members in the order of their bytes, or None."""
        try:
            return _parse(source)
        except (struct.error, _OddError):
            return None

    def rebuild(self, meta: bytes, members: Members) -> Iterator[bytes]:
        """Yield the zip file again."""
        fields = Cursor(meta)
        entries, order = _read_columns(fields)
        middle = fields.blob(META_BYTES_MAX)
        derived = fields.byte()
        tail = fields.blob(META_BYTES_MAX)
        at = 0
        placed: list[_Entry] = []
        for entry in entries:
            packed = members.take(*_content(entry))
            whole = _summed(entry, packed, at + len(entry.gap))
            yield whole.gap + whole.local()
            yield from packed.pieces
            yield whole.trailer()
            at = whole.offset + len(whole.local()) + whole.packed + len(whole.trailer())
            placed.append(whole)
        yield middle
        size = 0
        for index in order:
            listed = placed[index].directory()
            size += len(listed)
            yield listed
        if derived:
            if len(tail) < _END.size:
                raise MalformedError("a zip file without its end")
            tail = tail[:12] + struct.pack("<2I", size, at + len(middle)) + tail[20:]
        yield tail


class _OddError(Exception):
    """Something in a zip file that is left shut."""


def _content(entry: _Entry) -> tuple[Method, int]:
    """Return how a member is packed and the bytes of its content; what is not opened counts as it lies."""
    if entry.method == 8 and not entry.bits & 1:
        return Method.DEFLATE, entry.size
    return Method.STORED, entry.packed if entry.flags & _SUMS_TOLD else entry.size


def _summed(entry: _Entry, packed: Packed, offset: int) -> _Entry:
    if entry.flags & _SUMS_TOLD:
        return replace(entry, offset=offset)
    if packed.size is None or packed.crc is None or max(packed.size, offset) > 0xFFFFFFFF:
        raise MalformedError("a zip member without its checksum")
    return replace(entry, offset=offset, crc=packed.crc, packed=packed.size)


def _parse(source: Source) -> Parsed | None:
    start, end = _directory(source)
    entries = _entries(source.read(start, end - start))
    order = sorted(range(len(entries)), key=lambda index: entries[index].offset)
    located: list[_Entry] = []
    members: list[Member] = []
    at = 0
    for index in order:
        entry, data = _locate(source, entries[index], at, start)
        at = data + entry.packed + len(entry.trailer())
        if at > start:
            raise _OddError
        method, size = _content(entry)
        members.append(Member(((data, entry.packed),), method, size))
        located.append(entry)
    middle = source.read(at, start - at)
    if len(middle) > META_BYTES_MAX // 4:
        raise _OddError
    tail = source.read(end, source.size - end)
    derived = tail[12:20] == struct.pack("<2I", end - start, start)
    if derived:
        tail = tail[:12] + bytes(8) + tail[20:]
    rank = {index: position for position, index in enumerate(order)}
    meta = _write_columns(located, [rank[index] for index in range(len(entries))])
    return Parsed(meta + blob(middle) + bytes([derived]) + blob(tail), tuple(members))


def _directory(source: Source) -> tuple[int, int]:
    length = min(source.size, _END_BYTES_MAX)
    tail = source.read(source.size - length, length)
    place = tail.rfind(_END_SIGNATURE)
    if place < 0:
        raise _OddError
    _, disk, first, here, count, size, offset, _ = _END.unpack_from(tail, place)
    end = source.size - length + place
    # A ZIP64 record would stand between the directory and the end: then the two do not meet, and the file stays shut.
    if disk or first or here != count or offset + size != end or size > _DIRECTORY_BYTES_MAX or not count:
        raise _OddError
    return offset, end


def _entries(directory: bytes) -> list[_Entry]:
    entries = []
    at = 0
    while at < len(directory):
        (signature, made, needed, bits, method, time, date, crc, packed, size,
         names, extras, comments, disk, internal, external, offset) = _ENTRY.unpack_from(directory, at)  # fmt: skip
        at += _ENTRY.size
        ends = at + names, at + names + extras, at + names + extras + comments
        if signature != _ENTRY_SIGNATURE or ends[2] > len(directory):
            raise _OddError
        entries.append(
            _Entry(made, needed, bits, method, time, date, crc, packed, size, disk, internal, external, offset,
                   directory[at : ends[0]], directory[ends[0] : ends[1]], directory[ends[1] : ends[2]])
        )  # fmt: skip
        at = ends[2]
    return entries


def _locate(source: Source, entry: _Entry, at: int, end: int) -> tuple[_Entry, int]:
    """Return the entry with its local header told, and where its packed bytes begin."""
    if entry.offset < at or entry.offset + _LOCAL.size > end:
        raise _OddError
    fixed = source.read(entry.offset, _LOCAL.size)
    names, extras = struct.unpack_from("<2H", fixed, 26)
    data = entry.offset + _LOCAL.size + names + extras
    if fixed[:4] != _LOCAL_SIGNATURE or data + entry.packed > end:
        raise _OddError
    local = fixed + source.read(entry.offset + _LOCAL.size, names + extras)
    extra = local[_LOCAL.size + names :]
    # Members that are not held, and methods that are not opened, have sums which no one can derive.
    stored = entry.method == 0 and entry.size == entry.packed
    known = (stored or entry.method == 8) and not entry.bits & 1
    flags = 0 if known and max(entry.size, entry.packed) <= MEMBER_BYTES_HELD else _SUMS_TOLD
    after = source.read(data + entry.packed, min(16, end - data - entry.packed))
    if entry.bits & 8:
        sums = struct.pack("<3I", entry.crc, entry.packed, entry.size)
        if after == _DESCRIPTOR_SIGNATURE + sums:
            flags |= 1 << _DESCRIPTOR_SHIFT
        elif after[:12] == sums:
            flags |= 2 << _DESCRIPTOR_SHIFT
    gap = source.read(at, entry.offset - at)
    if len(gap) > 1 << 20:
        raise _OddError
    entry = replace(entry, flags=flags | (_GAP if gap else 0), gap=gap)
    for more, told in ((0, b""), (_SUMS_LATER, b""), (_LOCAL_EXTRA, extra), (_SUMS_LATER | _LOCAL_EXTRA, extra)):
        guess = replace(entry, flags=entry.flags | more, told=told)
        if guess.local() == local:
            return guess, data
    return replace(entry, flags=entry.flags | _LOCAL_TOLD, told=local), data


def _write_columns(entries: Sequence[_Entry], order: Sequence[int]) -> bytes:
    out = bytearray(varint(len(entries)))
    out += bytes(each.flags for each in entries)
    for field in _FIELDS:
        out += b"".join(getattr(each, field).to_bytes(2, "little") for each in entries)
    out += b"".join(each.external.to_bytes(4, "little") for each in entries)
    out += b"".join(varint(len(each.name)) + varint(len(each.extra)) + varint(len(each.comment)) for each in entries)
    out += b"".join(each.name for each in entries)
    out += b"".join(each.extra for each in entries)
    out += b"".join(each.comment for each in entries)
    for each in entries:
        if each.flags & (_LOCAL_EXTRA | _LOCAL_TOLD):
            out += blob(each.told)
        if each.flags & _GAP:
            out += blob(each.gap)
        if each.flags & _SUMS_TOLD:
            out += struct.pack("<2I", each.crc, each.packed)
    plain = list(order) == list(range(len(entries)))
    out += bytes([not plain]) + (b"" if plain else b"".join(index.to_bytes(2, "little") for index in order))
    # Sizes come last and by their bytes: they are what changes.
    for byte in range(4):
        out += bytes(each.size >> 8 * byte & 0xFF for each in entries)
    return bytes(out)


def _read_columns(fields: Cursor) -> tuple[list[_Entry], list[int]]:
    count = fields.varint(_MEMBERS_MAX)
    flags = fields.exactly(count)
    if (count and max(flags) > _FLAGS_MAX) or any(each >> _DESCRIPTOR_SHIFT > 2 for each in flags):
        raise MalformedError("a zip member of a kind that does not exist")
    columns = [struct.unpack(f"<{count}H", fields.exactly(2 * count)) for _ in _FIELDS]
    external = struct.unpack(f"<{count}I", fields.exactly(4 * count))
    lengths = [(fields.varint(0xFFFF), fields.varint(0xFFFF), fields.varint(0xFFFF)) for _ in range(count)]
    names = [fields.exactly(length[0]) for length in lengths]
    extras = [fields.exactly(length[1]) for length in lengths]
    comments = [fields.exactly(length[2]) for length in lengths]
    entries = []
    for index, (made, needed, bits, method, time, date, disk, internal) in enumerate(zip(*columns, strict=True)):
        mine = flags[index]
        told = fields.blob(META_BYTES_MAX) if mine & (_LOCAL_EXTRA | _LOCAL_TOLD) else b""
        gap = fields.blob(META_BYTES_MAX) if mine & _GAP else b""
        crc, packed = struct.unpack("<2I", fields.exactly(8)) if mine & _SUMS_TOLD else (0, 0)
        if len(told) > 0xFFFF and mine & _LOCAL_EXTRA:
            raise MalformedError("a zip member's local header is too long")
        entries.append(
            _Entry(made, needed, bits, method, time, date, crc, packed, 0, disk, internal, external[index], 0,
                   names[index], extras[index], comments[index], mine, told, gap)
        )  # fmt: skip
    order = list(range(count))
    if fields.byte():
        order = list(struct.unpack(f"<{count}H", fields.exactly(2 * count)))
        if sorted(order) != list(range(count)):
            raise MalformedError("a zip directory in an order that does not exist")
    sizes = [fields.exactly(count) for _ in range(4)]
    sized = [
        replace(entry, size=sum(column[index] << 8 * byte for byte, column in enumerate(sizes)))
        for index, entry in enumerate(entries)
    ]
    return sized, order

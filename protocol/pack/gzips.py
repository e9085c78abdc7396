"""A gzip file (RFC 1952) of one member; its trailer is derived. Files of several members stay shut."""

from __future__ import annotations

from collections.abc import Iterator

from protocol.errors import MalformedError
from protocol.pack.cursor import Cursor, Source, blob, varint
from protocol.pack.parts import MEMBER_BYTES_HELD, META_BYTES_MAX, Member, Members, Method, Parsed

_HEAD_BYTES_MAX = 4096
_TRAILER_BYTES = 8


class GzipContainer:
    """Opens and closes gzip files."""

    def matches(self, head: bytes) -> bool:
        """Return whether `head` opens a gzip file of a deflate stream."""
        return head[:3] == b"\x1f\x8b\x08"

    def parse(self, source: Source) -> Parsed | None:
        """Return the header and the one member, or None."""
        length = _header_length(source.read(0, min(source.size, _HEAD_BYTES_MAX)))
        if length is None or source.size < length + _TRAILER_BYTES:
            return None
        trailer = source.read(source.size - _TRAILER_BYTES, _TRAILER_BYTES)
        size = int.from_bytes(trailer[4:], "little")
        held = size <= MEMBER_BYTES_HELD
        meta = blob(source.read(0, length)) + varint(size) + blob(b"" if held else trailer[:4])
        packed = source.size - length - _TRAILER_BYTES
        return Parsed(meta, (Member(((length, packed),), Method.DEFLATE, size),))

    def rebuild(self, meta: bytes, members: Members) -> Iterator[bytes]:
        """Yield the gzip file again."""
        fields = Cursor(meta)
        yield fields.blob(META_BYTES_MAX)
        size = fields.varint(0xFFFFFFFF)
        told = fields.blob(4)
        packed = members.take(Method.DEFLATE, size)
        yield from packed.pieces
        if packed.crc is not None:
            told = packed.crc.to_bytes(4, "little")
        if len(told) != 4:
            raise MalformedError("a gzip file without its checksum")
        yield told + size.to_bytes(4, "little")


def _header_length(head: bytes) -> int | None:
    """Return the length of the header (RFC 1952 section 2.3), or None where it is not whole or has unknown flags."""
    if len(head) < 10 or head[3] & 0xE0:
        return None
    at = 10
    if head[3] & 4:
        at += 2 + int.from_bytes(head[at : at + 2], "little")
    for flag in (8, 16):
        if head[3] & flag:
            end = head.find(b"\0", at)
            if end < 0:
                return None
            at = end + 1
    if head[3] & 2:
        at += 2
    return at if at <= len(head) else None

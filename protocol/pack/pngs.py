"""A PNG image: its IDAT chunks are one zlib stream of filtered rows.

`meta` holds the chunks around the image and how the stream was cut into chunks; checksums are derived. An image whose
IDAT chunks are not next to each other stays shut.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from protocol.errors import MalformedError
from protocol.pack.cursor import Cursor, Source, blob, varint
from protocol.pack.parts import MEMBER_BYTES_HELD, META_BYTES_MAX, Member, Members, Method, Parsed

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNKS_MAX = 100_000
_CHUNK_FRAME_BYTES = 12


class PngContainer:
    """Opens and closes PNG images."""

    def matches(self, head: bytes) -> bool:
        """Return whether `head` opens a PNG image."""
        return head[:8] == _SIGNATURE

    def parse(self, source: Source) -> Parsed | None:
        """Return what stands around the image data, and the image data, or None."""
        if source.size > MEMBER_BYTES_HELD:
            return None
        data = source.read(0, source.size)
        chunks = _image_chunks(data)
        if not chunks:
            return None
        first, last = chunks[0][0] - 8, chunks[-1][0] + chunks[-1][1] + 4
        stream = b"".join(data[start : start + length] for start, length in chunks)
        window_bits = (stream[0] >> 4) + 8 if stream else 0
        # RFC 1950: method 8, no preset dictionary; zlib makes no raw streams with the smallest window.
        if len(stream) < 6 or stream[0] & 15 != 8 or stream[1] & 0x20 or not 9 <= window_bits <= 15:
            return None
        content = _inflated(stream)
        if content is None:
            return None
        lengths = _encode_lengths([length for _, length in chunks])
        meta = blob(data[:first]) + blob(data[last:]) + stream[:2] + blob(lengths) + varint(len(content))
        ranges = _inner(chunks)
        return Parsed(meta, (Member(ranges, Method.DEFLATE, len(content), window_bits),))

    def rebuild(self, meta: bytes, members: Members) -> Iterator[bytes]:
        """Yield the image again."""
        fields = Cursor(meta)
        before, after = fields.blob(META_BYTES_MAX), fields.blob(META_BYTES_MAX)
        opening = fields.exactly(2)
        lengths = Cursor(fields.blob(META_BYTES_MAX))
        packed = members.take(Method.DEFLATE, fields.varint(MEMBER_BYTES_HELD))
        if packed.adler is None:
            raise MalformedError("an image without its checksum")
        stream = opening + b"".join(packed.pieces) + packed.adler.to_bytes(4, "big")
        yield before
        at = 0
        for length in _decode_lengths(lengths, len(stream)):
            body = b"IDAT" + stream[at : at + length]
            at += length
            yield length.to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        yield after


def _image_chunks(data: bytes) -> list[tuple[int, int]] | None:
    """Return the (offset, length) of the data of each IDAT chunk, or None for an image that is left shut."""
    at = len(_SIGNATURE)
    found: list[tuple[int, int]] = []
    while at + _CHUNK_FRAME_BYTES <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + _CHUNK_FRAME_BYTES + length
        if end > len(data):
            return None
        if data[at + 4 : at + 8] == b"IDAT":
            apart = found and found[-1][0] + found[-1][1] + 4 != at
            right = zlib.crc32(data[at + 4 : end - 4]).to_bytes(4, "big") == data[end - 4 : end]
            if apart or not right or len(found) >= _CHUNKS_MAX:
                return None
            found.append((at + 8, length))
        at = end
    return found


def _inflated(stream: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(stream, MEMBER_BYTES_HELD)
    except zlib.error:
        return None
    return content if unpacker.eof and not unpacker.unused_data else None


def _inner(chunks: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the ranges of the raw deflate stream: without zlib's 2 bytes in front and 4 at the end."""
    ranges = [list(each) for each in chunks]
    front, back = 2, 4
    for each in ranges:
        cut = min(front, each[1])
        each[0] += cut
        each[1] -= cut
        front -= cut
    for each in reversed(ranges):
        cut = min(back, each[1])
        each[1] -= cut
        back -= cut
    return tuple((offset, length) for offset, length in ranges if length)


def _encode_lengths(lengths: list[int]) -> bytes:
    """Return 0 and the common length where all chunks but the last are alike, else 1 and every length."""
    if len(set(lengths[:-1])) <= 1 and lengths[-1] > 0 and (len(lengths) == 1 or lengths[-1] <= lengths[0]):
        return b"\0" + varint(lengths[0] if len(lengths) > 1 else 0)
    return b"\1" + b"".join(varint(length) for length in lengths)


def _decode_lengths(fields: Cursor, size: int) -> list[int]:
    lengths: list[int] = []
    if fields.byte() == 0:
        step = fields.varint(1 << 31) or size
        if size > step * _CHUNKS_MAX:
            raise MalformedError("an image is cut into too many chunks")
        return [min(step, size - at) for at in range(0, size, step)]
    while fields.left:
        lengths.append(fields.varint(1 << 31))
    if sum(lengths) != size:
        raise MalformedError("an image's chunks do not hold its data")
    return lengths

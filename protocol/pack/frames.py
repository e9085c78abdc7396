"""Frames: a slice of the logical stream, packed against a prefix of held content by whichever codec was smallest.

Every codec here is bounded by the size that the index gives a frame, and runs in the time of its input and output. A
frame that does not come out at exactly that size is malformed; whether its bytes are right is for the digests of the
files to say.
"""

from __future__ import annotations

import lzma
from enum import IntEnum
from itertools import accumulate

from protocol.errors import MalformedError
from protocol.pack.cursor import Cursor
from protocol.pack.zstds import expand_prefixed

FRAME_BYTES_MAX = 8 << 20
"""What a truck holds of a frame; decoding one takes at most its prefix and three times this."""

PREFIX_BYTES_MAX = 16 << 20
_COVERS_MAX = 1 << 20


class Codec(IntEnum):
    """How a frame, or a stream inside a delta frame, is packed."""

    STORED = 0
    ZSTD = 1
    LZMA = 2
    PPMD = 3
    DELTA = 4


PLAIN_CODECS = (Codec.STORED, Codec.ZSTD, Codec.LZMA)


def unpack(codec: Codec, body: bytes, prefix: bytes, size: int) -> bytes:
    """Return the `size` bytes of a frame; raise `MalformedError`."""
    if size > FRAME_BYTES_MAX or len(prefix) > PREFIX_BYTES_MAX:
        raise MalformedError("a frame is larger than a truck can hold")
    match codec:
        case Codec.STORED:
            data = body
        case Codec.ZSTD:
            data = expand_prefixed(body, prefix, size)
        case Codec.LZMA:
            data = unlzma(body, size)
        case Codec.PPMD:
            data = unppmd(body, size)
        case Codec.DELTA:
            data = undelta(body, prefix, size)
    if len(data) != size:
        raise MalformedError("a frame has another size than was said")
    return data


def unlzma(body: bytes, size: int) -> bytes:
    """Return what a raw LZMA stream holds: one byte of lc, lp and pb as in .lzma files, then the stream."""
    if not body or body[0] >= 225:
        raise MalformedError("an LZMA stream without its settings")
    rest, lc = divmod(body[0], 9)
    pb, lp = divmod(rest, 5)
    if lc + lp > 4:
        raise MalformedError("an LZMA stream with settings that do not exist")
    # The dictionary is as large as the output, so that a decoder holds no more than that.
    filters = [{"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": max(4096, size)}]
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        data = decoder.decompress(body[1:], max_length=size)
        while len(data) < size and not decoder.needs_input:
            part = decoder.decompress(b"", max_length=size - len(data))
            if not part:
                break
            data += part
    except (lzma.LZMAError, EOFError, MemoryError) as error:
        raise MalformedError("an LZMA stream is broken") from error
    if len(data) != size:
        raise MalformedError("an LZMA stream has another size than was said")
    return data


def unppmd(body: bytes, size: int) -> bytes:
    """Return what a PPMd variant I stream holds: two bytes of order and memory (MiB), then the stream."""
    try:
        import pyppmd
    except ImportError as error:
        raise MalformedError("a frame of PPMd, which this truck did not ask for") from error
    if len(body) < 2 or not 2 <= body[0] <= 32 or not 1 <= body[1] <= 32:
        raise MalformedError("a PPMd stream with settings that do not exist")
    decoder = pyppmd.Ppmd8Decoder(body[0], body[1] << 20)
    try:
        data: bytes = decoder.decode(body[2:], size)
    except (ValueError, MemoryError, EOFError, SystemError) as error:
        raise MalformedError("a PPMd stream is broken") from error
    return data


def stream(fields: Cursor, most: int) -> bytes:
    """Return the next stream of a delta frame: codec, size, packed size, bytes."""
    codec, size, packed = fields.byte(), fields.varint(most), fields.varint(most)
    body = fields.exactly(packed)
    match codec:
        case Codec.STORED:
            data = body
        case Codec.ZSTD:
            data = expand_prefixed(body, b"", size)
        case Codec.LZMA:
            data = unlzma(body, size)
        case Codec.PPMD:
            data = unppmd(body, size)
        case _:
            raise MalformedError("a stream of a delta frame in a codec that it cannot have")
    if len(data) != size:
        raise MalformedError("a stream of a delta frame has another size than was said")
    return data


def undelta(body: bytes, prefix: bytes, size: int) -> bytes:
    """Return a frame that is told by covers: places in the prefix, the differences there, and what is in none.

    Four streams: cover lengths, gaps before them and steps of their places (varints, zigzag for steps); differences
    (bytes to add, modulo 256); literals.
    """
    fields = Cursor(body)
    control = Cursor(stream(fields, FRAME_BYTES_MAX))
    differences = stream(fields, FRAME_BYTES_MAX)
    literals = stream(fields, FRAME_BYTES_MAX)
    count = control.varint(_COVERS_MAX)
    lengths = [control.varint(size) for _ in range(count)]
    gaps = [control.varint(size) for _ in range(count)]
    steps = [control.varint(4 * PREFIX_BYTES_MAX) for _ in range(count)]
    if sum(lengths) != len(differences) or sum(lengths) + len(literals) != size or sum(gaps) > len(literals):
        raise MalformedError("a delta frame whose parts do not add up")
    held = bytearray()
    place = 0
    for length, step in zip(lengths, steps, strict=True):
        place += step >> 1 if not step & 1 else -(step >> 1) - 1
        if place < 0 or place + length > len(prefix):
            raise MalformedError("a delta frame reaches outside of its prefix")
        held += prefix[place : place + length]
        place += length
    covered = add_bytes(bytes(held), differences)
    out = bytearray()
    literal_at = 0
    for gap, start, length in zip(gaps, accumulate(lengths, initial=0), lengths, strict=False):
        out += literals[literal_at : literal_at + gap]
        literal_at += gap
        out += covered[start : start + length]
    out += literals[literal_at:]
    return bytes(out)


_LANE_BYTES = 1 << 12


def add_bytes(left: bytes, right: bytes) -> bytes:
    """Return the sums, modulo 256, of two byte strings of one length; long integers do thousands of bytes at a time."""
    out = bytearray()
    for start in range(0, len(left), _LANE_BYTES):
        a, b = left[start : start + _LANE_BYTES], right[start : start + _LANE_BYTES]
        if not any(b):
            out += a
            continue
        low = int.from_bytes(b"\x7f" * len(a), "little")
        x, y = int.from_bytes(a, "little"), int.from_bytes(b, "little")
        # The top bit of each byte is added without a carry, so that no byte spills into the next.
        total = ((x & low) + (y & low)) ^ ((x ^ y) & ~low)
        out += total.to_bytes(len(a), "little")
    return bytes(out)

"""Frames: a slice of the logical stream, packed against a prefix of held content by whichever codec was smallest.

Every codec here is bounded by the size that the index gives a frame, and runs in the time of its input and output. A
frame that does not come out at exactly that size is malformed; whether its bytes are right is for the digests of the
files to say.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from protocol.errors import MalformedError
from protocol.pack.cursor import Cursor, unzigzag
from protocol.pack.zstds import expand_prefixed

FRAME_BYTES_MAX = 16 << 20
HELD_BYTES_MAX = 24 << 20
"""What a truck holds in memory of a frame and its prefix together: decoding takes about twice as much."""

DELTA_PREFIX_BYTES_MAX = 64 << 20
"""The prefix of a delta frame may be larger: it is read at places and never held."""

_COVERS_MAX = 1 << 20


class Codec(IntEnum):
    """How a frame, or a stream inside a delta frame, is packed."""

    STORED = 0
    ZSTD = 1
    LZMA = 2
    PPMD = 3
    DELTA = 4


class Prefix(Protocol):
    """Held content that a frame stands on."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`; the caller keeps within `size`."""


def unpack(codec: Codec, body: bytes, prefix: Prefix, size: int) -> bytes:
    """Return the `size` bytes of a frame; raise `MalformedError`."""
    if size > FRAME_BYTES_MAX or (codec is not Codec.DELTA and size + prefix.size > HELD_BYTES_MAX):
        raise MalformedError("a frame is larger than a truck can hold")
    match codec:
        case Codec.STORED:
            data = body
        case Codec.ZSTD:
            data = expand_prefixed(body, prefix.read(0, prefix.size), size)
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


def undelta(body: bytes, prefix: Prefix, size: int) -> bytes:
    """Return a frame that is told by covers: places in the prefix, the differences there, and what is in none.

    Streams: lengths of covers, gaps before them, steps of their places (zigzag); then, for the places inside covers
    where something differs, the bytes that stay before each and its length; the values to add there, modulo 256;
    literals. Numbers are varints.
    """
    fields = Cursor(body)
    control, literals, runs, values = (stream(fields, FRAME_BYTES_MAX) for _ in range(4))
    covers = _read_covers(Cursor(control), size, len(literals))
    out = bytearray()
    covered: list[tuple[int, int]] = []  # where in the output covers lie
    literal_at = 0
    for cover in covers:
        out += literals[literal_at : literal_at + cover.gap]
        literal_at += cover.gap
        covered.append((len(out), cover.length))
        if not 0 <= cover.place <= prefix.size - cover.length:
            raise MalformedError("a delta frame reaches outside of its prefix")
        out += prefix.read(cover.place, cover.length)
    out += literals[literal_at:]
    if len(out) != size or fields.left:
        raise MalformedError("a delta frame whose parts do not add up")
    _add_runs(out, covered, Cursor(runs), values)
    return bytes(out)


@dataclass(frozen=True, slots=True)
class _Cover:
    gap: int
    place: int
    length: int


def _read_covers(control: Cursor, size: int, literals: int) -> list[_Cover]:
    count = control.varint(_COVERS_MAX)
    lengths = [control.varint(size) for _ in range(count)]
    gaps = [control.varint(size) for _ in range(count)]
    steps = [unzigzag(control.varint(4 * DELTA_PREFIX_BYTES_MAX)) for _ in range(count)]
    if control.left or sum(lengths) + literals != size or sum(gaps) > literals:
        raise MalformedError("a delta frame whose parts do not add up")
    covers = []
    place = 0
    for gap, step, length in zip(gaps, steps, lengths, strict=True):
        covers.append(_Cover(gap, place + step, length))
        place += step + length
    return covers


def _add_runs(out: bytearray, covered: list[tuple[int, int]], runs: Cursor, values: bytes) -> None:
    """Add the differences, run by run; a run may go over the end of a cover into the next."""
    waiting = iter(covered)
    start, left = next(waiting, (0, 0))
    at = 0
    count = runs.varint(len(values))
    skips = [runs.varint(len(out)) for _ in range(count)]
    lengths = [runs.varint(len(out)) for _ in range(count)]
    if runs.left or sum(lengths) != len(values) or sum(skips) + len(values) > sum(length for _, length in covered):
        raise MalformedError("a delta frame whose differences do not add up")
    for skip, length in zip(skips, lengths, strict=True):
        while skip > left:
            skip -= left
            start, left = next(waiting)
        start, left = start + skip, left - skip
        while length:
            while not left:
                start, left = next(waiting)
            part = min(length, left)
            out[start : start + part] = add_bytes(out[start : start + part], values[at : at + part])
            start, left, at, length = start + part, left - part, at + part, length - part


def add_bytes(left: bytes | bytearray, right: bytes) -> bytes:
    """Return the sums, modulo 256, of two byte strings of one length."""
    if len(left) == 1:
        return bytes([(left[0] + right[0]) & 0xFF])
    low = int.from_bytes(b"\x7f" * len(left), "little")
    x, y = int.from_bytes(left, "little"), int.from_bytes(right, "little")
    # The top bit of each byte is added without a carry, so that no byte spills into the next.
    return (((x & low) + (y & low)) ^ ((x ^ y) & ~low)).to_bytes(len(left), "little")

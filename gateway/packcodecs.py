"""Frames packed: every codec is tried, the smallest is kept."""

from __future__ import annotations

import lzma
import re
from dataclasses import dataclass

import hdiffpatch
import pyppmd

from protocol.errors import MalformedError
from protocol.pack.cursor import BytesSource, Cursor, varint, zigzag
from protocol.pack.frames import Codec, unpack
from protocol.pack.zstds import squeeze

_LZMA_SETTINGS = ((3, 0, 2), (3, 0, 0), (0, 0, 0), (4, 0, 0), (0, 2, 2), (0, 3, 3))
_LZMA_PROBE_BYTES = 1 << 20
_QUICK_LEVEL = 12
_WORTH_A_TRY = 1.5
_SPARSE_RATIO = 100
_PPMD_ORDER, _PPMD_MIB = 8, 24


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """A frame as it travels."""

    codec: Codec
    body: bytes


@dataclass(frozen=True, slots=True)
class Cover:
    """A stretch of the new bytes that is much like one of the old."""

    old: int
    new: int
    length: int


def pack_frame(data: bytes, prefix: bytes, near: bytes, *, ppmd: bool = True) -> PackedFrame:
    """Return the smallest form of a frame that decodes to exactly its bytes.

    `near` is the best part of the prefix, as much as a truck holds in memory; only delta frames stand on all of it.
    """
    forms = [(Codec.STORED, data, b""), (Codec.ZSTD, squeeze(data, near, level=_QUICK_LEVEL), near)]
    forms.append((Codec.DELTA, delta(data, prefix), prefix) if prefix else (Codec.LZMA, pack_lzma(data), b""))
    forms.sort(key=lambda form: len(form[1]))
    # The highest level takes minutes for what the delta has won by far already.
    quick = next(len(body) for codec, body, _ in forms if codec is Codec.ZSTD)
    if quick <= _WORTH_A_TRY * len(forms[0][1]):
        forms.append((Codec.ZSTD, squeeze(data, near), near))
    if ppmd and not prefix and quick < len(data):
        forms.append((Codec.PPMD, pack_ppmd(data), b""))
    for codec, body, base in sorted(forms, key=lambda form: len(form[1])):
        if body and _decodes(codec, body, base, data):
            return PackedFrame(codec, body)
    raise AssertionError("a stored frame decodes")


def _decodes(codec: Codec, body: bytes, prefix: bytes, data: bytes) -> bool:
    try:
        return unpack(codec, body, BytesSource(prefix), len(data)) == data
    except MalformedError:
        return False


def pack_ppmd(data: bytes) -> bytes:
    """Return a PPMd stream of some bytes, with its settings in front."""
    encoder = pyppmd.Ppmd8Encoder(_PPMD_ORDER, _PPMD_MIB << 20)
    packed: bytes = encoder.encode(data) + encoder.flush()
    return bytes([_PPMD_ORDER, _PPMD_MIB]) + packed


def pack_lzma(data: bytes) -> bytes:
    """Return the smallest raw LZMA stream of some bytes, with its settings in front."""
    # What is best for a part of it is best for all of it, nearly, and the whole takes long.
    part = data[:_LZMA_PROBE_BYTES]
    sizes = {settings: len(_lzma(part, *settings)) for settings in _LZMA_SETTINGS}
    if len(data) <= _LZMA_PROBE_BYTES:
        return _lzma(data, *min(sizes, key=sizes.__getitem__))
    best = sorted(sizes, key=sizes.__getitem__)[:2]
    return min((_lzma(data, *settings) for settings in best), key=len)


def _lzma(data: bytes, lc: int, lp: int, pb: int) -> bytes:
    filters = [
        {
            "id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "lc": lc, "lp": lp, "pb": pb,
            "dict_size": max(4096, len(data)), "nice_len": 273,
        }
    ]  # fmt: skip
    return bytes([(pb * 5 + lp) * 9 + lc]) + lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)


def pack_stream(data: bytes) -> bytes:
    """Return one stream of a delta frame in its smallest form."""
    forms = [(Codec.STORED, data)]
    if data:
        forms += [(Codec.LZMA, pack_lzma(data)), (Codec.ZSTD, squeeze(data, b""))]
    codec, body = min(forms, key=lambda form: len(form[1]))
    return bytes([codec]) + varint(len(data)) + varint(len(body)) + body


def delta(data: bytes, prefix: bytes) -> bytes:
    """Return a frame as covers of its prefix, differences and literals."""
    return _delta(data, prefix, find_covers(prefix, data))


def _delta(data: bytes, prefix: bytes, covers: list[Cover]) -> bytes:
    lengths, gaps, steps = bytearray(), bytearray(), bytearray()
    differences, literals = [], bytearray()
    new = old = 0
    for cover in covers:
        lengths += varint(cover.length)
        gaps += varint(cover.new - new)
        steps += varint(zigzag(cover.old - old))
        literals += data[new : cover.new]
        new, old = cover.new + cover.length, cover.old + cover.length
        differences.append(subtract_bytes(data[cover.new : new], prefix[cover.old : old]))
    literals += data[new:]
    control = varint(len(covers)) + lengths + gaps + steps
    told = b"".join(pack_stream(bytes(each)) for each in (control, literals))
    return told + _pack_differences(b"".join(differences))


def _pack_differences(differences: bytes) -> bytes:
    """Return the differences as runs of what is not zero, or as one run of them all where that is smaller."""
    runs, values = _runs(differences)
    apart = pack_stream(runs) + pack_stream(values)
    # Where little differs, the zeros between are dearer than where they are.
    if len(values) * _SPARSE_RATIO < len(differences):
        return apart
    whole = pack_stream(varint(1) + varint(0) + varint(len(differences))) + pack_stream(differences)
    return min(apart, whole, key=len)


def _runs(differences: bytes) -> tuple[bytes, bytes]:
    """Return where the differences are that are not zero, and those."""
    skips, lengths, values = bytearray(), bytearray(), bytearray()
    last = count = 0
    for run in re.finditer(rb"[^\0]+", differences):
        skips += varint(run.start() - last)
        lengths += varint(run.end() - run.start())
        values += run.group()
        last = run.end()
        count += 1
    return varint(count) + skips + lengths, bytes(values)


def subtract_bytes(left: bytes, right: bytes) -> bytes:
    """Return the differences, modulo 256, of two byte strings of one length."""
    high = int.from_bytes(b"\x80" * len(left), "little")
    x, y = int.from_bytes(left, "little"), int.from_bytes(right, "little")
    return (((x | high) - (y & ~high)) ^ ((x ^ ~y) & high)).to_bytes(len(left), "little")


def find_covers(old: bytes, new: bytes) -> list[Cover]:
    """Return where the new bytes resemble the old, in ascending order of the new, as HDiffPatch finds it."""
    diff = hdiffpatch.diff(old, new, hdiffpatch.COMPRESSION_NONE, validate=False)
    fields = Cursor(diff[diff.index(b"\0") + 1 :])
    numbers = [_number(fields) for _ in range(11)]
    covers = []
    old_at = new_at = 0
    for _ in range(numbers[2]):
        first = fields.byte()
        step = _number(fields, first, bits=6)
        old_at += -step if first & 0x80 else step
        new_at += _number(fields)
        length = _number(fields)
        covers.append(Cover(old_at, new_at, length))
        old_at += length
        new_at += length
    return covers


def _number(fields: Cursor, first: int | None = None, bits: int = 7) -> int:
    """Return a number of HDiffPatch's: groups of 7 bits, the highest first; the first group may have fewer."""
    byte = fields.byte() if first is None else first
    value = byte & ((1 << bits) - 1)
    more = byte & (1 << bits)
    while more:
        byte = fields.byte()
        value = value << 7 | byte & 0x7F
        more = byte & 0x80
    return value

"""Every codec gives back the bytes; nothing hostile gets more memory than its frame was said to need."""

import lzma
import random
import tracemalloc

import pytest

from gateway.packcodecs import delta, find_covers, pack_frame, pack_lzma, pack_ppmd, subtract_bytes
from protocol.errors import MalformedError
from protocol.pack.cursor import BytesSource, varint
from protocol.pack.frames import FRAME_BYTES_MAX, Codec, add_bytes, unlzma, unpack, unppmd
from protocol.pack.zstds import squeeze

NONE = BytesSource(b"")


def edited(data: bytes, seed: int) -> bytes:
    """Return a copy with bytes changed in place, added and taken away."""
    noise = random.Random(seed)
    out = bytearray(data)
    for _ in range(40):
        at = noise.randrange(len(out))
        out[at] = (out[at] + 1) & 0xFF
    out[500:500] = b"a paragraph that was not there"
    del out[3000:3050]
    return bytes(out)


def test_delta_frames_give_back_what_was_edited(make) -> None:
    old = make.text(1, 200_000)
    new = edited(old, 2)
    body = delta(new, old)
    assert len(body) < 600
    assert unpack(Codec.DELTA, body, BytesSource(old), len(new)) == new


@pytest.mark.parametrize("seed", range(8))
def test_covers_are_what_the_diff_says(seed: int) -> None:
    noise = random.Random(seed)
    old = noise.randbytes(30_000)
    blocks = [old[at : at + 900] for at in range(0, 30_000, 1000)]
    noise.shuffle(blocks)
    new = b"".join(blocks) + noise.randbytes(50)
    covers = find_covers(old, new)
    assert sum(cover.length for cover in covers) > 20_000
    assert unpack(Codec.DELTA, delta(new, old), BytesSource(old), len(new)) == new


def test_differences_and_sums_undo_each_other() -> None:
    noise = random.Random(1)
    for size in (1, 2, 7, 4096):
        left, right = noise.randbytes(size), noise.randbytes(size)
        assert add_bytes(right, subtract_bytes(left, right)) == left


def test_zstd_stands_on_its_prefix_and_on_none(make) -> None:
    old = make.text(3, 50_000)
    new = edited(old, 4)
    assert len(squeeze(new, old)) < len(squeeze(new, b"")) / 10
    assert unpack(Codec.ZSTD, squeeze(new, old), BytesSource(old), len(new)) == new
    assert unpack(Codec.ZSTD, squeeze(new, b"tiny"), NONE, len(new)) == new


def test_a_first_install_of_text_is_packed_by_ppmd(make) -> None:
    data = make.text(5, 40_000)
    frame = pack_frame(data, b"", b"")
    assert frame.codec is Codec.PPMD
    assert unpack(frame.codec, frame.body, NONE, len(data)) == data
    assert pack_frame(data, b"", b"", ppmd=False).codec is not Codec.PPMD


def test_what_does_not_pack_is_stored() -> None:
    noise = random.Random(1).randbytes(5000)
    assert pack_frame(noise, b"", b"").codec is Codec.STORED


@pytest.mark.parametrize("codec", list(Codec))
def test_broken_frames_are_refused_or_have_their_size(make, fuzz, codec: Codec) -> None:
    old = make.text(6, 3000)
    new = edited(old, 7)
    body = {
        Codec.STORED: new,
        Codec.ZSTD: squeeze(new, old),
        Codec.LZMA: pack_lzma(new),
        Codec.PPMD: pack_ppmd(new),
        Codec.DELTA: delta(new, old),
    }[codec]
    prefix = BytesSource(old if codec in (Codec.ZSTD, Codec.DELTA) else b"")
    for broken in fuzz(body, 200):
        try:
            assert len(unpack(codec, broken, prefix, len(new))) == len(new)
        except MalformedError:
            continue


def test_a_bomb_costs_no_more_than_its_frame_was_said_to_be() -> None:
    bomb = bytes(64 << 20)
    squeezed = squeeze(bomb, b"", level=1)
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 0, "lc": 0, "lp": 0, "pb": 0}]
    packed = b"\0" + lzma.compress(bomb, format=lzma.FORMAT_RAW, filters=filters)
    del bomb
    tracemalloc.start()
    with pytest.raises(MalformedError):
        unpack(Codec.ZSTD, squeezed, NONE, 1000)
    # A raw LZMA stream has no end of its own: it is cut off at its size, and the file's digest says the rest.
    assert unpack(Codec.LZMA, packed, NONE, 1000) == bytes(1000)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_frames_and_prefixes_beyond_the_limit_are_refused() -> None:
    with pytest.raises(MalformedError):
        unpack(Codec.STORED, b"x", NONE, FRAME_BYTES_MAX + 1)
    with pytest.raises(MalformedError):
        unpack(Codec.ZSTD, b"x", BytesSource(bytes(24 << 20)), 1)


@pytest.mark.parametrize("settings", [b"", b"\xe1abc", bytes([4 * 9 + 8]) + b"abc"])
def test_lzma_settings_that_do_not_exist_are_refused(settings: bytes) -> None:
    with pytest.raises(MalformedError):
        unlzma(settings, 100)


@pytest.mark.parametrize("settings", [b"", b"\x01\x08x", b"\x06\xffx", b"\x06\x00x"])
def test_ppmd_settings_beyond_the_memory_are_refused(settings: bytes) -> None:
    with pytest.raises(MalformedError):
        unppmd(settings, 100)


def test_a_delta_that_reaches_outside_of_its_prefix_is_refused() -> None:
    # One cover of 10 bytes at place 0 of a prefix that has 5.
    control = bytes([1, 10, 0, 0])
    empty = bytes([Codec.STORED, 0, 0])
    body = bytes([Codec.STORED]) + varint(len(control)) * 2 + control + empty + bytes([0, 1, 1, 0]) + empty
    with pytest.raises(MalformedError, match="outside"):
        unpack(Codec.DELTA, body, BytesSource(b"12345"), 10)
    assert unpack(Codec.DELTA, body, BytesSource(b"1234567890"), 10) == b"1234567890"

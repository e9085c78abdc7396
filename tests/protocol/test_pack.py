"""Plain packs: what comes out is what went in, and a hostile pack is refused before it costs memory."""

import hashlib
import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cbor
from protocol.documents import Manifest, ManifestFile
from protocol.errors import MalformedError
from protocol.numbers import DocumentKind
from protocol.pack import FRAME_BYTES, Frame, FrameCodec, decode_pack, encode_pack, wanted_files

NOISE = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(4_000))


def unpack(pack: bytes, size: int) -> bytes:
    return b"".join(decode_pack(io.BytesIO(pack).read, size))


def pack_of(frames: list[list[int]], *bodies: bytes, version: int = 1) -> bytes:
    header = cbor.encode([version, frames])
    return len(header).to_bytes(4, "big") + header + b"".join(bodies)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(max_size=4_000), max_size=8))
def test_what_comes_out_is_what_went_in(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    assert unpack(b"".join(encode_pack(chunks)), len(data)) == data


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES + 7])
def test_frames_are_cut_at_their_limit(size: int) -> None:
    data = (b"line of text\n" * (size // 13 + 1))[:size]
    pack = b"".join(encode_pack([data]))
    length = int.from_bytes(pack[:4], "big")
    _, frames = cbor.decode(pack[4 : 4 + length])
    assert [frame[1] for frame in frames] == [FRAME_BYTES] * (size // FRAME_BYTES) + [size % FRAME_BYTES] * (
        size % FRAME_BYTES > 0
    )
    assert [len(each) for each in decode_pack(io.BytesIO(pack).read, size)] == [frame[1] for frame in frames]
    assert unpack(pack, size) == data


def test_what_does_not_shrink_is_stored() -> None:
    pack = b"".join(encode_pack([NOISE]))
    assert len(pack) <= len(NOISE) + 20
    assert unpack(pack, len(NOISE)) == NOISE


def test_progress_counts_up_to_the_whole() -> None:
    heard: list[int] = []
    list(encode_pack([bytes(FRAME_BYTES), bytes(10)], progress=heard.append))
    assert heard == [FRAME_BYTES, FRAME_BYTES + 10]


def test_a_cut_pack_is_refused_wherever_it_is_cut() -> None:
    pack = b"".join(encode_pack([b"text " * 1_000]))
    for at in range(len(pack)):
        with pytest.raises(MalformedError):
            unpack(pack[:at], 5_000)


def test_a_pack_of_another_size_than_the_manifests_is_refused() -> None:
    pack = b"".join(encode_pack([b"text " * 1_000]))
    for size in (0, 4_999, 5_001):
        with pytest.raises(MalformedError, match="manifest"):
            unpack(pack, size)


@pytest.mark.parametrize(
    "pack",
    [
        (1 << 31).to_bytes(4, "big") + bytes(100),
        pack_of([], version=2),
        pack_of([[2, 5, 5]], b"hello"),
        pack_of([[0, 5, 4]], b"hell"),
        pack_of([[0, 0, 5]], b"hello"),
        pack_of([[0, 5, 0]]),
        pack_of([[0, 5, FRAME_BYTES + 1]], bytes(FRAME_BYTES + 1)),
        pack_of([[1, 5, 5]], b"hello"),
        pack_of([[1, 5, 9]], bytes.fromhex("28b52ffd0000010000")),
    ],
)
def test_a_pack_that_does_not_hold_is_refused(pack: bytes) -> None:
    with pytest.raises(MalformedError):
        unpack(pack, 5)


def test_a_frame_that_would_explode_is_stopped_at_its_size() -> None:
    bomb = b"".join(encode_pack([bytes(FRAME_BYTES)]))
    length = int.from_bytes(bomb[:4], "big")
    body = bomb[4 + length :]
    tracemalloc.start()
    with pytest.raises(MalformedError, match="another size"):
        unpack(pack_of([[1, 10, len(body)]], body), 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < FRAME_BYTES


def test_frames_are_of_known_codecs() -> None:
    assert Frame.decode(cbor.encode([1, 5, 5])).codec is FrameCodec.ZSTD
    with pytest.raises(MalformedError):
        Frame.decode(cbor.encode([9, 5, 5]))


def test_each_digest_travels_once_and_only_if_it_is_not_held() -> None:
    one, two, three = (bytes([n]) * 32 for n in (1, 2, 3))
    files = tuple(
        ManifestFile(path, size, digest)
        for path, size, digest in [("a", 5, one), ("b", 7, two), ("c", 5, one), ("d", 0, three), ("e", 9, bytes(32))]
    )
    manifest = Manifest(DocumentKind.MANIFEST, 1, 0, 1, "math-1", "1", "static", files)
    assert [file.path for file in wanted_files(manifest, set())] == ["a", "b", "e"]
    assert [file.path for file in wanted_files(manifest, {two})] == ["a", "e"]
    assert wanted_files(manifest, {one, two, bytes(32)}) == ()

"""The fallback bodies are what their one-paragraph description says, and believe nothing."""

import pytest
from backports import zstd

from protocol import cbor
from protocol.bodies import decode_cbor_rows, decode_delta_zstd, encode_cbor_rows, encode_delta_zstd
from protocol.errors import MalformedError
from protocol.rows import Row
from protocol.schema import Channel, Schema

SCHEMA = Schema((Channel("a", nominal=10), Channel("b")))
ROWS: list[Row] = [(600, (11, None)), (660, (9, -5)), (721, (9, 300))]


def test_cbor_rows_are_an_array_of_arrays() -> None:
    assert cbor.decode(encode_cbor_rows(ROWS)) == [[600, 11, None], [660, 9, -5], [721, 9, 300]]


def test_delta_columns_are_zigzag_varints() -> None:
    plain = zstd.decompress(encode_delta_zstd(SCHEMA, ROWS))
    times = bytes([3, 0xB8, 0x08, 0, 2])  # three rows; 600 - 0 - 60 = 540, then on time, then one second late
    assert plain == times + bytes([0, 2, 3, 0]) + bytes([1, 0b110, 9, 0xE2, 0x04])


@pytest.mark.parametrize(
    "value", [[1], [[1, 2]], [[1, 2, "3"]], [[1, 2, True]], [[None, 1, 2]], [[1, 2, 1 << 63]], [[1 << 60, 1, 2]], {}]
)
def test_cbor_rows_of_another_form_are_malformed(value: object) -> None:
    with pytest.raises(MalformedError):
        decode_cbor_rows(SCHEMA, cbor.encode(value), rows_max=10)


def test_a_zstd_bomb_is_refused_without_being_built() -> None:
    bomb = zstd.compress(bytes(200_000_000), level=1)
    assert len(bomb) < 20_000
    with pytest.raises(MalformedError, match="too long"):
        decode_delta_zstd(SCHEMA, bomb, rows_max=1000)


def test_a_window_beyond_eight_mebibytes_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 25, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    frame = compressor.compress(bytes(range(256)) * 8, mode=zstd.ZstdCompressor.FLUSH_BLOCK) + compressor.flush()
    with pytest.raises(MalformedError):
        decode_delta_zstd(SCHEMA, frame, rows_max=1000)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\x05",
        b"\xff\xff\xff\xff\x0f",
        bytes([1, 0, 2, 0, 0, 0]),
        bytes([1, 0, 1]),
        bytes([0, 0, 0, 9]),
        bytes([1, 0, 0]) + b"\xff" * 12 + b"\x00" * 9,
    ],
)
def test_damaged_columns_are_malformed(plain: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_delta_zstd(SCHEMA, zstd.compress(plain), rows_max=100)


def test_what_follows_a_frame_is_malformed() -> None:
    body = encode_delta_zstd(SCHEMA, ROWS)
    for damaged in (body + b"x", body[:-1], b"junk"):
        with pytest.raises(MalformedError):
            decode_delta_zstd(SCHEMA, damaged, rows_max=100)

"""Zstandard frames (RFC 8878): bounded decoding, and the clusters of a ZIM file made again.

A decoder is given no more output than was agreed on, and no larger window than a frame with its prefix can need,
whatever the packed bytes say of themselves (a header of 43 bytes can ask for a gibibyte).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from protocol.errors import MalformedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WINDOW_LOG_MAX = 26
ZSTD_CODE_MAX = 4 * 23
_STEP_BYTES = 1 << 18
_PREFIX_BYTES_MIN = 8


def expand(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield what one zstd frame holds; raise `MalformedError` unless that is exactly `size` bytes and its end."""
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX})
    left = size
    ended = False
    for piece in pieces:
        if ended:
            raise MalformedError("bytes follow a zstd frame")
        waiting = piece
        while not ended:
            try:
                part = decoder.decompress(waiting, max_length=min(_STEP_BYTES, left + 1))
            except zstd.ZstdError as error:
                raise MalformedError("a zstd frame is broken") from error
            waiting = b""
            ended = decoder.eof
            left -= len(part)
            if left < 0:
                raise MalformedError("a zstd frame is longer than was said")
            if part:
                yield part
            if decoder.needs_input:
                break
        if decoder.unused_data:
            raise MalformedError("bytes follow a zstd frame")
    if left or not ended:
        raise MalformedError("a zstd frame is shorter than was said")


def unpacked_size(pieces: Iterable[bytes], *, most: int) -> int | None:
    """Return how many bytes one zstd frame holds, or None where it is broken or holds more than `most`."""
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX})
    size = 0
    try:
        for piece in pieces:
            waiting = piece
            while not decoder.eof:
                part = decoder.decompress(waiting, max_length=_STEP_BYTES)
                waiting = b""
                size += len(part)
                if size > most:
                    return None
                if decoder.needs_input:
                    break
    except zstd.ZstdError:
        return None
    return size if decoder.eof and not decoder.unused_data else None


def expand_prefixed(packed: bytes, prefix: bytes, size: int) -> bytes:
    """Return the `size` bytes of a frame made against a prefix; raise `MalformedError`."""
    dictionary = zstd.ZstdDict(prefix, is_raw=True).as_prefix if len(prefix) >= _PREFIX_BYTES_MIN else None
    decoder = zstd.ZstdDecompressor(
        zstd_dict=dictionary, options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX}
    )
    try:
        data = decoder.decompress(packed, max_length=size)
        if len(data) == size and not decoder.eof:
            data += decoder.decompress(b"", max_length=1)
    except zstd.ZstdError as error:
        raise MalformedError("a zstd frame is broken") from error
    if len(data) != size or not decoder.eof or decoder.unused_data:
        raise MalformedError("a zstd frame has another size than was said")
    return data


def squeeze(data: bytes, prefix: bytes, *, level: int = 22) -> bytes:
    """Return one zstd frame of `data` against `prefix`, without checksum."""
    parameter = zstd.CompressionParameter
    window = max(10, min(WINDOW_LOG_MAX, (len(prefix) + len(data)).bit_length()))
    options: dict[int, int] = {
        parameter.compression_level: level,
        parameter.window_log: window,
        parameter.checksum_flag: 0,
        parameter.enable_long_distance_matching: 0,
    }
    if level >= 20:
        options |= {parameter.target_length: 999, parameter.chain_log: min(27, window + 1), parameter.search_log: 10}
    dictionary = zstd.ZstdDict(prefix, is_raw=True).as_prefix if len(prefix) >= _PREFIX_BYTES_MIN else None
    packer = zstd.ZstdCompressor(options=options, zstd_dict=dictionary)
    packer.set_pledged_input_size(len(data))
    return packer.compress(data, mode=zstd.ZstdCompressor.FLUSH_FRAME)


def repack(pieces: Iterable[bytes], code: int, size: int) -> Iterator[bytes]:
    """Yield content as one zstd frame, in the way that `code` (above 0) numbers; see `packings`."""
    level, style = (code - 1) % 23, (code - 1) // 23
    options: dict[int, int] = {zstd.CompressionParameter.compression_level: level}
    if style & 2:
        options[zstd.CompressionParameter.checksum_flag] = 1
    packer = zstd.ZstdCompressor(options=options)
    if style & 1:
        packer.set_pledged_input_size(size)
        yield packer.compress(b"".join(pieces), mode=zstd.ZstdCompressor.FLUSH_FRAME)
        return
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush(mode=zstd.ZstdCompressor.FLUSH_FRAME)

"""Plain packs: the bytes that take a truck from the files it has to the files of a manifest, without deltas.

Layout: a length-prefixed deterministic CBOR header `[version, [[codec, size, packed size], ...]]`, then the frames.
Decoded, the frames are the contents of the wanted objects (each distinct digest once, in manifest order, those already
held left out) as one stream, cut into slices of at most `FRAME_BYTES`. A frame is decoded with a bound on its output,
and what comes out is believed only by the manifest's own sizes and SHA-256 digests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import IntEnum
from typing import Annotated

from msgspec import Meta

from protocol import cbor
from protocol.documents import Manifest, ManifestFile
from protocol.errors import MalformedError
from protocol.wire import WireArray, convert

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FRAME_BYTES = 1 << 20
_HEADER_BYTES_MAX = 1 << 20
_LENGTH_BYTES = 4
_WINDOW_LOG_MAX = 23  # 8 MiB: what a truck is willing to hold for a decoder
_LEVEL = 19


class FrameCodec(IntEnum):
    """How a frame is packed."""

    STORED = 0
    ZSTD = 1


class Frame(WireArray, frozen=True):
    """One frame of a pack: its codec, its size in bytes decoded, and packed."""

    codec: FrameCodec
    size: Annotated[int, Meta(ge=1, le=FRAME_BYTES)]
    packed: Annotated[int, Meta(ge=1, le=FRAME_BYTES)]


def wanted_files(manifest: Manifest, held: Collection[bytes]) -> tuple[ManifestFile, ...]:
    """Return the files whose contents a pack carries: one for each distinct digest that is not held, in order."""
    seen = set(held)
    wanted = []
    for file in manifest.files:
        if file.digest not in seen and file.size > 0:
            seen.add(file.digest)
            wanted.append(file)
    return tuple(wanted)


def encode_pack(chunks: Iterable[bytes], *, progress: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """Yield the pack of a stream, header first; `progress` hears how many bytes are encoded so far."""
    frames, packed = [], []
    done = 0
    for piece in _slices(chunks, FRAME_BYTES):
        squeezed = zstd.compress(piece, options={zstd.CompressionParameter.compression_level: _LEVEL})
        codec, body = (FrameCodec.ZSTD, squeezed) if len(squeezed) < len(piece) else (FrameCodec.STORED, piece)
        frames.append([int(codec), len(piece), len(body)])
        packed.append(body)
        done += len(piece)
        progress(done)
    header = cbor.encode([1, frames])
    yield len(header).to_bytes(_LENGTH_BYTES, "big") + header
    yield from packed


def decode_pack(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """Yield the decoded frames of a pack of at most `size` decoded bytes; `read(n)` returns the next n bytes.

    Raises `MalformedError` before it would hold or yield more than the manifest allows.
    """
    length = int.from_bytes(_exactly(read, _LENGTH_BYTES), "big")
    if length > _HEADER_BYTES_MAX:
        raise MalformedError("the pack's header is beyond its limit")
    header = cbor.decode(_exactly(read, length), bytes_max=_HEADER_BYTES_MAX, items_max=400_000)
    version, frames = convert(header, tuple[int, tuple[Frame, ...]])
    if version != 1:
        raise MalformedError(f"a pack of version {version}, which this software does not know")
    if sum(frame.size for frame in frames) != size:
        raise MalformedError("the pack does not hold as many bytes as the manifest asks for")
    for frame in frames:
        if frame.codec is FrameCodec.STORED and frame.packed != frame.size:
            raise MalformedError("a stored frame of the pack has two sizes")
        body = _exactly(read, frame.packed)
        yield body if frame.codec is FrameCodec.STORED else _decompress(body, frame.size)


def _decompress(body: bytes, size: int) -> bytes:
    # The output is bounded here: a size that a zstd frame header declares is a stranger's promise.
    try:
        decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
        data = decoder.decompress(body, max_length=size)
    except zstd.ZstdError as error:
        raise MalformedError("a frame of the pack does not decode") from error
    if len(data) != size or not decoder.eof:
        raise MalformedError("a frame of the pack has another size than its header says")
    return data


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    data = read(count)
    if len(data) != count:
        raise MalformedError("the pack ends early")
    return data


def _slices(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)

"""Small containers of every kind, made here; and ways to break them."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator

from protocol.pack.zstds import repack


def text(seed: int, size: int = 6000) -> bytes:
    """Return words, the same for the same seed."""
    words = random.Random(0)
    stock = ["".join(words.choices("abcdefghijklmnop", k=words.randint(2, 9))) for _ in range(400)]
    chosen = random.Random(seed)
    return " ".join(chosen.choices(stock, k=size // 6)).encode()[:size]


def make_zip(
    members: dict[str, bytes], *, level: int = 6, streamed: bool = False, stored: tuple[str, ...] = ()
) -> bytes:
    """Return a zip file; `streamed` writes sums behind the members, as one that cannot seek does."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            self.data += bytes(data)
            return len(data)

    pipe, file = Pipe(), io.BytesIO()
    with zipfile.ZipFile(pipe if streamed else file, "w") as out:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6))
            info.compress_type = zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED
            out.writestr(info, data, compresslevel=level)
    return bytes(pipe.data) if streamed else file.getvalue()


def make_png(seed: int, *, chunk: int = 8192, level: int = 9) -> bytes:
    """Return a PNG image of 64 x 64 pixels, its data cut into chunks."""
    noise = random.Random(seed)
    rows = b"".join(b"\x01" + bytes(noise.choice((0, 1, 255)) for _ in range(192)) for _ in range(64))
    stream = zlib.compress(rows, level)

    def made(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pieces = [made(b"IDAT", stream[at : at + chunk]) for at in range(0, len(stream), chunk)]
    head = made(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(pieces) + made(b"IEND", b"")


def make_gzip(data: bytes, *, level: int = 9, name: bytes = b"") -> bytes:
    """Return a gzip file."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    head = b"\x1f\x8b\x08" + (b"\x08" if name else b"\0") + b"\1\2\3\4\2\3" + (name + b"\0" if name else b"")
    return head + packed + struct.pack("<2I", zlib.crc32(data), len(data))


def make_zim(clusters: list[list[bytes]]) -> bytes:
    """Return a ZIM archive of zstd clusters, laid out as libzim 8 lays it out: header, clusters, dirents, lists."""
    bodies = []
    for blobs in clusters:
        offsets = [4 * (len(blobs) + 1)]
        for each in blobs:
            offsets.append(offsets[-1] + len(each))
        content = struct.pack(f"<{len(offsets)}I", *offsets) + b"".join(blobs)
        bodies.append(b"\x05" + b"".join(repack([content], 1 + 19, len(content))))
    at = 80
    starts = []
    for body in bodies:
        starts.append(at)
        at += len(body)
    dirents = [struct.pack("<HBBIII", 0, 0, 67, 0, number, 0) + b"a\0t\0" for number in range(len(clusters))]
    places = []
    lists = bytearray()
    for each in dirents:
        places.append(at + len(lists))
        lists += each
    urls = at + len(lists)
    lists += struct.pack(f"<{len(places)}Q", *places)
    pointers = at + len(lists)
    lists += struct.pack(f"<{len(starts)}Q", *starts)
    end = at + len(lists)
    header = struct.pack(
        "<I2H16s2I4Q2IQ", 0x044D495A, 6, 1, bytes(16), len(dirents), len(bodies), urls, end, pointers, 80, 0, 0, end
    )
    return header + b"".join(bodies) + bytes(lists) + b"md5 of it all 16"


class Containers:
    """Makes containers for tests."""

    text = staticmethod(text)
    zip = staticmethod(make_zip)
    png = staticmethod(make_png)
    gzip = staticmethod(make_gzip)
    zim = staticmethod(make_zim)


def broken(data: bytes, count: int) -> Iterator[bytes]:
    """Yield broken copies of some bytes: flipped, cut, grown and with large numbers."""
    noise = random.Random(len(data))
    for number in range(count):
        copy = bytearray(data)
        at = noise.randrange(len(copy))
        match number % 4:
            case 0:
                copy[at] ^= 1 << noise.randrange(8)
            case 1:
                del copy[at : at + noise.randint(1, 40)]
            case 2:
                copy[at:at] = bytes(noise.randrange(256) for _ in range(noise.randint(1, 12)))
            case 3:
                copy[at : at + 4] = b"\xff\xff\xff\xff"
        if bytes(copy) != data:
            yield bytes(copy)

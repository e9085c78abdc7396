"""What a truck's decoders can make again bit for bit, so that a pack asks for nothing else.

The libraries that pack are not the same on every machine: zlib-ng or a newer zstd give other bytes at the same level.
A profile is a hash of what each makes of one test text at many settings. Where it is not the gateway's own, containers
that need that library stay shut; unpacking is the same everywhere and needs no fingerprint.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zlib
from dataclasses import dataclass
from functools import cache

from protocol.errors import MalformedError
from protocol.pack.zstds import repack

_PRINT_BYTES = 4
_VERSION = 1
_PROFILE_BYTES = 2 + 2 * _PRINT_BYTES
_TEXT_BYTES = 1 << 16
_ZSTD_CODES = (4, 10, 20, 23)


@dataclass(frozen=True, slots=True)
class Profile:
    """Fingerprints of deflate and zstd, and whether PPMd frames can be read."""

    deflate: bytes
    zstd: bytes
    ppmd: bool

    def encode(self) -> bytes:
        """Return the profile as a request for a pack carries it."""
        return bytes([_VERSION, self.ppmd]) + self.deflate + self.zstd

    @classmethod
    def decode(cls, data: bytes) -> Profile:
        """Return the profile of a request; raise `MalformedError`."""
        if len(data) != _PROFILE_BYTES or data[0] != _VERSION or data[1] > 1:
            raise MalformedError("a profile of decoders that this software does not know")
        return cls(data[2 : 2 + _PRINT_BYTES], data[2 + _PRINT_BYTES :], bool(data[1]))


@cache
def own_profile() -> Profile:
    """Return the profile of this machine."""
    text = _text()
    deflated = hashlib.sha256()
    for level in range(1, 10):
        for mem_level in (8, 9):
            packer = zlib.compressobj(level, zlib.DEFLATED, -15, mem_level)
            deflated.update(packer.compress(text) + packer.flush())
    packed = hashlib.sha256()
    for code in _ZSTD_CODES:
        packed.update(b"".join(repack([text], code, len(text))))
    ppmd = importlib.util.find_spec("pyppmd") is not None
    return Profile(deflated.digest()[:_PRINT_BYTES], packed.digest()[:_PRINT_BYTES], ppmd)


def _text() -> bytes:
    """Return a text with matches near and far, runs, and stretches that do not pack."""
    out = bytearray()
    number = 0
    while len(out) < _TEXT_BYTES:
        seed = hashlib.sha256(number.to_bytes(4, "big")).digest()
        # Every third block comes from long ago, every fifth is a run.
        out += seed.hex().encode() if number % 3 else out[number * 7 % max(1, len(out)) :][: 40 + seed[0]]
        out += b"=" * seed[1] if number % 5 == 0 else seed[: seed[2] % 16]
        number += 1
    return bytes(out[:_TEXT_BYTES])

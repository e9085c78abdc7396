"""Sealing what a courier carries: to one P-256 key by HPKE (RFC 9180), and objects chunk by chunk under a content key.

The recipient's key is its EDHOC key, of which only the x coordinate is known: both sides take the point with even y.
The ephemeral key and its entropy are the library's own. Each purpose has its own `info`, so that nothing sealed for one
opens for another. Deliberately absent: who sealed it; everything inside is signed or named by digest.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.errors import MalformedError, SignatureError
from protocol.numbers import STICK_CHUNK_BYTES, STICK_CHUNK_TAG_BYTES, STICK_KEY_BYTES

_INFO_KEY: Final = b"digitruck/stick-key/1"
INFO_UP: Final = b"digitruck/stick-up/1"
_INFO_OBJECT: Final = b"digitruck/stick-object/1"
_SUITE: Final = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_CURVE: Final = ec.SECP256R1()
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NONCE_BYTES: Final = 12


def key_info(stick: bytes, truck: str) -> bytes:
    """Return the info under which a stick's content key is encrypted to a truck."""
    return _INFO_KEY + stick + truck.encode()


def seal(public_x: bytes, data: bytes, info: bytes) -> bytes:
    """Return `data` encrypted to the holder of a P-256 key (x coordinate, 32 bytes); raise `MalformedError`."""
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, b"\x02" + public_x)
    except ValueError as error:
        raise MalformedError("not a P-256 key") from error
    return _SUITE.encrypt(data, key, info=info)


def open_sealed(private: bytes, sealed: bytes, info: bytes) -> bytes:
    """Return what `seal` encrypted to this private key (32 bytes); raise `SignatureError`."""
    scalar = int.from_bytes(private, "big")
    key = ec.derive_private_key(scalar, _CURVE)
    if key.public_key().public_numbers().y % 2:
        key = ec.derive_private_key(_ORDER - scalar, _CURVE)
    try:
        return _SUITE.decrypt(sealed, key, info=info)
    except (InvalidTag, ValueError) as error:
        raise SignatureError("it is not encrypted to this key, or it was changed") from error


class ObjectSeal:
    """Seals and opens the chunks of the objects of one truck on one stick."""

    def __init__(self, key: bytes) -> None:
        if len(key) != STICK_KEY_BYTES:
            raise MalformedError(f"a content key has {STICK_KEY_BYTES} bytes")
        self._key = key

    def name(self, digest: bytes) -> bytes:
        """Return under which name an object lies: a finder of the stick cannot tell which it is."""
        return hashlib.sha256(self._key + digest).digest()

    def cipher(self, digest: bytes) -> ChunkCipher:
        """Return what seals and opens the chunks of one object."""
        return ChunkCipher(HKDF(SHA256(), STICK_KEY_BYTES, salt=None, info=_INFO_OBJECT + digest).derive(self._key))

    def open_whole(self, digest: bytes, stored: bytes) -> bytes:
        """Return an object of which all is at hand; raise `SignatureError` for one that was changed."""
        cipher, step = self.cipher(digest), STICK_CHUNK_BYTES + STICK_CHUNK_TAG_BYTES
        return b"".join(cipher.open(at // step, stored[at : at + step]) for at in range(0, len(stored), step))


class ChunkCipher:
    """The chunks of one object, each sealed with its number as nonce: a key seals one object, once."""

    def __init__(self, key: bytes) -> None:
        self._aead = ChaCha20Poly1305(key)

    def seal(self, number: int, chunk: bytes) -> bytes:
        """Return a chunk with its tag."""
        return self._aead.encrypt(number.to_bytes(_NONCE_BYTES, "big"), chunk, None)

    def open(self, number: int, sealed: bytes) -> bytes:
        """Return a chunk; raise `SignatureError` for one that was changed."""
        if len(sealed) <= STICK_CHUNK_TAG_BYTES:
            raise SignatureError("a chunk is longer than its tag")
        try:
            return self._aead.decrypt(number.to_bytes(_NONCE_BYTES, "big"), sealed, None)
        except InvalidTag as error:
            raise SignatureError("a chunk was changed") from error

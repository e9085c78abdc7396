"""COSE signatures with Ed25519 and domain separation (RFC 9052 sections 4.2 to 4.4, RFC 8032).

Three forms: a tagged COSE_Sign1 (one signer), a tagged COSE_Sign (several, for thresholds), and a bare signature over
the same Sig_structure for parcels, whose headers both sides know and leave out. Every signature covers an external_aad
that opens with a context string, so that one made for a parcel can never pass as one on a document.
Deliberately absent: other algorithms, unprotected headers beyond the key id, detached payloads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol import cbor
from protocol.errors import MalformedError, SignatureError
from protocol.numbers import (
    COSE_ALG,
    COSE_EDDSA,
    COSE_KID,
    DOCUMENT_BYTES_MAX,
    KEY_ID_BYTES,
    SIGNATURE_BYTES,
    SIGNATURES_MAX,
    TAG_SIGN,
    TAG_SIGN1,
)

_PROTECTED = cbor.encode({COSE_ALG: COSE_EDDSA})
_NO_HEADERS = b""
_TAGS = frozenset({TAG_SIGN1, TAG_SIGN})


def digest(data: bytes) -> bytes:
    """Return the SHA-256 of `data`: what names a document, a blob and a key."""
    return hashlib.sha256(data).digest()


def key_id(public_key: bytes) -> bytes:
    """Return the key id of a 32-byte Ed25519 public key: 8 bytes of its SHA-256. A hint, never an authority."""
    return digest(public_key)[:KEY_ID_BYTES]


class SigningKey:
    """An Ed25519 private key; it is made from 32 bytes of entropy that the caller brings."""

    __slots__ = ("_private", "key_id", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.seed = seed
        self.public = self._private.public_key().public_bytes_raw()
        self.key_id = key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id.hex()})"


def verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check one Ed25519 signature; raise `SignatureError`."""
    try:
        _verifier(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError("the signature does not verify") from error


@lru_cache(maxsize=16_384)
def _verifier(public_key: bytes) -> Ed25519PublicKey:
    # A fifth of a verification is to decompress the key, and a gateway sees the same few over and over.
    return Ed25519PublicKey.from_public_bytes(public_key)


def sign1_structure(payload: bytes, external_aad: bytes) -> bytes:
    """Return the Sig_structure of a COSE_Sign1 with our one protected header (RFC 9052 section 4.4)."""
    return cbor.encode(["Signature1", _PROTECTED, external_aad, payload])


def _sign_structure(payload: bytes, external_aad: bytes) -> bytes:
    return cbor.encode(["Signature", _NO_HEADERS, _PROTECTED, external_aad, payload])


def sign1(key: SigningKey, payload: bytes, external_aad: bytes) -> bytes:
    """Return a tagged COSE_Sign1 with the key id in its unprotected header."""
    signature = key.sign(sign1_structure(payload, external_aad))
    return cbor.encode(cbor2.CBORTag(TAG_SIGN1, [_PROTECTED, {COSE_KID: key.key_id}, payload, signature]))


def sign(keys: list[SigningKey], payload: bytes, external_aad: bytes) -> bytes:
    """Return a tagged COSE_Sign with one signature for each key; the order of keys does not matter."""
    message = _sign_structure(payload, external_aad)
    signatures = [Countersigned(key.key_id, key.sign(message)) for key in keys]
    return assemble(payload, signatures)


@dataclass(frozen=True, slots=True)
class Countersigned:
    """One signature of a COSE_Sign and the key id that it names."""

    key_id: bytes
    signature: bytes


def assemble(payload: bytes, signatures: list[Countersigned]) -> bytes:
    """Return the COSE_Sign that carries `signatures` (from one or several sittings), in the order of their key ids."""
    ordered = sorted(signatures, key=lambda each: (each.key_id, each.signature))
    body = [_NO_HEADERS, {}, payload, [[_PROTECTED, {COSE_KID: each.key_id}, each.signature] for each in ordered]]
    return cbor.encode(cbor2.CBORTag(TAG_SIGN, body))


@dataclass(frozen=True, slots=True)
class Signed:
    """A parsed but NOT yet verified COSE_Sign1 or COSE_Sign."""

    payload: bytes
    signatures: tuple[Countersigned, ...]
    single: bool

    def verify(self, public_keys: Mapping[bytes, bytes], external_aad: bytes) -> frozenset[bytes]:
        """Return the distinct keys of `public_keys` (key id to key) that signed; raise if any known one is wrong.

        Signatures of unknown key ids are skipped: they prove nothing. An empty result raises `SignatureError`.
        """
        structure = sign1_structure if self.single else _sign_structure
        message = structure(self.payload, external_aad)
        signers = set()
        for each in self.signatures:
            public_key = public_keys.get(each.key_id)
            if public_key is not None:
                verify(public_key, message, each.signature)
                signers.add(public_key)
        if not signers:
            raise SignatureError("no signature by a key that is trusted for this")
        return frozenset(signers)


def parse(data: bytes, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> Signed:
    """Return the parts of a tagged COSE_Sign1 or COSE_Sign; raise `MalformedError`."""
    match cbor.decode(data, bytes_max=bytes_max, tags=_TAGS):
        case cbor2.CBORTag(
            tag=18, value=[bytes() as protected, dict() as unprotected, bytes() as payload, bytes() as signature]
        ):
            return Signed(payload, (_signature([protected, unprotected, signature]),), single=True)
        case cbor2.CBORTag(tag=98, value=[b"", dict() as empty, bytes() as payload, list() as items]) if not empty:
            if not 0 < len(items) <= SIGNATURES_MAX:
                raise MalformedError(f"a COSE_Sign carries 1 to {SIGNATURES_MAX} signatures")
            return Signed(payload, tuple(_signature(item) for item in items), single=False)
    raise MalformedError("neither a COSE_Sign1 nor a COSE_Sign")


def _signature(item: object) -> Countersigned:
    match item:
        case [bytes() as protected, dict() as unprotected, bytes() as signature] if (
            protected == _PROTECTED
            and set(unprotected) == {COSE_KID}
            and isinstance(unprotected[COSE_KID], bytes)
            and len(unprotected[COSE_KID]) == KEY_ID_BYTES
            and len(signature) == SIGNATURE_BYTES
        ):
            return Countersigned(unprotected[COSE_KID], signature)
    raise MalformedError("a COSE signature with headers other than EdDSA and an 8-byte key id")

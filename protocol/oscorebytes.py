"""OSCORE over bytes: the one shape of datagram that carries nearly all uploads, opened and answered without objects.

A truck's upload is a NON POST with an OSCORE option and nothing else outside (RFC 8613 section 6.1), its answer a NON
2.04 with an empty one, under the nonce of its request (section 5.2, case 1). `parse` knows that shape and no other: for
everything else it returns None, and the caller takes the long way through aiocoap, which is the reference that tests
compare with, byte for byte. The algorithm is ours alone, AES-CCM-16-64-128.

Deliberately absent: replay windows, sequence numbers, contexts (`protocol.oscore`), and any option inside but Uri-Path.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

# RFC 7252 section 3: version 1, NON; the token's length is in the lower half.
_NON_HEAD = 0x50
_TOKEN_BYTES_MAX = 8
_POST, _CHANGED = 0x02, 0x44
_MARKER = 0xFF
# RFC 7252 section 3.1: the first option is number 9 (OSCORE), with a length that needs no further byte.
_OPTION_OSCORE, _OPTION_BYTES_MAX = 0x90, 12
# RFC 8613 section 6.1: n in the lowest three bits, then k; h and what is reserved are not for us.
_FLAG_KID, _PIV_BITS, _PIV_BYTES_MAX = 0x08, 0x07, 5
_TAG_BYTES, _NONCE_BYTES = 8, 13
# What a kid may take so that each length below fits one byte of CBOR.
_KID_BYTES_MAX = 7
# Encrypt0 with an empty protected header, up to the head of its external_aad (RFC 9052 section 5.3).
_ENCRYPT0 = b"\x83\x68Encrypt0\x40"
# oscore_version 1, algorithms [10] (RFC 8613 section 5.4).
_AAD_HEAD = b"\x85\x01\x81\x0a"
_NO_CLASS_I_OPTIONS = b"\x40"


@dataclass(frozen=True, slots=True)
class ProtectedRequest:
    """The parts of a protected request, none of them verified."""

    token: bytes
    kid: bytes
    partial_iv: bytes
    ciphertext: bytes

    @property
    def sequence(self) -> int:
        """The sender sequence number that it claims."""
        return int.from_bytes(self.partial_iv, "big")


def parse(data: bytes) -> ProtectedRequest | None:
    """Return the parts of a NON POST whose one outer option is OSCORE with a partial IV and a kid, else None."""
    if len(data) < 5 or data[0] & 0xF0 != _NON_HEAD or data[1] != _POST:
        return None
    at = 4 + (data[0] & 0x0F)
    if at > 4 + _TOKEN_BYTES_MAX or len(data) < at + 2:
        return None
    size = data[at] - _OPTION_OSCORE
    if not 2 <= size <= _OPTION_BYTES_MAX:
        return None
    flags = data[at + 1]
    piv_bytes = flags & _PIV_BITS
    if flags & ~_PIV_BITS != _FLAG_KID or not 1 <= piv_bytes <= _PIV_BYTES_MAX:
        return None
    end = at + 1 + size
    kid_at = at + 2 + piv_bytes
    # A ciphertext holds at least the inner code and the tag.
    if kid_at > end or end - kid_at > _KID_BYTES_MAX or len(data) < end + 2 + _TAG_BYTES or data[end] != _MARKER:
        return None
    return ProtectedRequest(data[4:at], data[kid_at:end], data[at + 2 : kid_at], data[end + 1 :])


def kid_of(data: bytes) -> bytes | None:
    """Return the kid that a request names in an OSCORE option which is its first, confirmable or with EDHOC too.

    Nothing else is checked: this is for a first look at what anybody may have sent.
    """
    at = 4 + (data[0] & 0x0F) if data else 0
    if len(data) <= at + 1:
        return None
    size, flags = data[at] - _OPTION_OSCORE, data[at + 1]
    if not 2 <= size <= _OPTION_BYTES_MAX or flags & ~_PIV_BITS != _FLAG_KID:
        return None
    return data[at + 2 + (flags & _PIV_BITS) : at + 1 + size]


def nonce(common_iv: bytes, sender_id: bytes, piv: bytes) -> bytes:
    """Return the nonce of a partial IV of the side with this id (RFC 8613 section 5.2)."""
    block = bytes([len(sender_id)]) + sender_id.rjust(_NONCE_BYTES - 6, b"\0") + piv.rjust(5, b"\0")
    return bytes(one ^ other for one, other in zip(common_iv, block, strict=True))


def additional_data(kid: bytes, piv: bytes) -> bytes:
    """Return the additional data that binds a request, and all its answers, to its kid and partial IV (section 5.4)."""
    external = _AAD_HEAD + bytes([0x40 | len(kid)]) + kid + bytes([0x40 | len(piv)]) + piv + _NO_CLASS_I_OPTIONS
    return _ENCRYPT0 + bytes([0x40 | len(external)]) + external


class Cipher:
    """The keys of one context, ready for use from the side that receives requests."""

    __slots__ = ("_aad_kid", "_base", "_kid", "_receive", "_send")

    def __init__(self, recipient_key: bytes, sender_key: bytes, common_iv: bytes, recipient_id: bytes) -> None:
        """Take what `derive_keys` made of a context (16-byte keys, 13-byte IV) and the kid that requests name."""
        self._receive = AESCCM(recipient_key, _TAG_BYTES)
        self._send = AESCCM(sender_key, _TAG_BYTES)
        self._kid = recipient_id
        # RFC 8613 section 5.2: the length of the id, the id, and the partial IV, each filled up with zeros on its left.
        block = bytes([len(recipient_id)]) + recipient_id.rjust(_NONCE_BYTES - 6, b"\0") + bytes(5)
        self._base = int.from_bytes(common_iv[:_NONCE_BYTES], "big") ^ int.from_bytes(block, "big")
        self._aad_kid = _AAD_HEAD + bytes([0x40 | len(recipient_id)]) + recipient_id

    def open(self, request: ProtectedRequest) -> bytes | None:
        """Return the plaintext of a request (inner code, options, payload), None if it does not verify."""
        assert request.kid == self._kid
        try:
            return self._receive.decrypt(self._nonce(request), request.ciphertext, self._aad(request))
        except InvalidTag:
            return None

    def seal(self, request: ProtectedRequest, plaintext: bytes) -> bytes:
        """Return the ciphertext of the one answer to a request that `open` took; a second would reuse its nonce."""
        return self._send.encrypt(self._nonce(request), plaintext, self._aad(request))

    def _nonce(self, request: ProtectedRequest) -> bytes:
        return (self._base ^ request.sequence).to_bytes(_NONCE_BYTES, "big")

    def _aad(self, request: ProtectedRequest) -> bytes:
        piv = request.partial_iv
        external = self._aad_kid + bytes([0x40 | len(piv)]) + piv + _NO_CLASS_I_OPTIONS
        return _ENCRYPT0 + bytes([0x40 | len(external)]) + external


def inner_response(code: int, payload: bytes) -> bytes:
    """Return the plaintext of a response without options."""
    return bytes([code, _MARKER]) + payload if payload else bytes([code])


def response(request: ProtectedRequest, message_id: int, ciphertext: bytes) -> bytes:
    """Return the datagram of a protected response to a POST: NON, 2.04 outside, an empty OSCORE option."""
    head = bytes([_NON_HEAD | len(request.token), _CHANGED, message_id >> 8, message_id & 0xFF])
    return head + request.token + bytes([_OPTION_OSCORE, _MARKER]) + ciphertext

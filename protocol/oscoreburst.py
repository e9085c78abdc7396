"""OSCORE over bytes for bursts: one request that many datagrams answer, made, opened and answered without objects.

The truck's request has the shape that `protocol.oscorebytes` reads. Each answer is a NON 2.04 with an OSCORE option,
and has a partial IV of the gateway's own (RFC 8613 section 5.2, case 2), under the additional data of the request. An
answer under the nonce of its request is understood too. Its plaintext is code, marker, one byte that says which piece
of the request it is, and the piece. Several answers to one request are those of RFC 7641 in all but the Observe option,
whose order and age mean nothing for pieces of an immutable object, and which would cost three bytes a datagram.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from protocol.numbers import PATH_BURST
from protocol.oscorebytes import ProtectedRequest, additional_data, nonce

_NON_HEAD, _CHANGED, _POST, _FETCH, _CONTENT = 0x50, 0x44, 0x02, 0x05, 0x45
_OPTION_OSCORE, _MARKER, _FLAG_KID, _PIV_BYTES_MAX = 0x90, 0xFF, 0x08, 5
_TAG_BYTES = 8

# Inside: FETCH, one Uri-Path of one letter, and a payload.
BURST_HEAD = bytes([_FETCH, 0xB1]) + PATH_BURST.encode() + bytes([_MARKER])
# Around a piece, IPv4 and UDP included: 28, CoAP 4, token 2, option with a partial IV of up to 5, marker, code, marker,
# ordinal, tag.
ANSWER_OVERHEAD_BYTES = 28 + 4 + 2 + 7 + 1 + 3 + _TAG_BYTES


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that is no piece: its inner code, or None when it came without protection."""

    code: int | None


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece: which one of its request, and its bytes."""

    ordinal: int
    data: bytes


def partial_iv(sequence: int) -> bytes:
    """Return the shortest form of a sequence number (RFC 8613 section 6.1)."""
    return sequence.to_bytes(max(1, (sequence.bit_length() + 7) // 8), "big")


class AskerCipher:
    """The keys of one context, ready for use from the side that sends requests."""

    __slots__ = ("_common_iv", "_receive", "_recipient_id", "_send", "_sender_id")

    def __init__(
        self, sender_key: bytes, recipient_key: bytes, common_iv: bytes, sender_id: bytes, recipient_id: bytes
    ) -> None:
        """Take what `derive_keys` made of a context."""
        self._send = AESCCM(sender_key, _TAG_BYTES)
        self._receive = AESCCM(recipient_key, _TAG_BYTES)
        self._common_iv = common_iv
        self._sender_id, self._recipient_id = sender_id, recipient_id

    def request(self, payload: bytes, *, token: bytes, message_id: int, sequence: int) -> bytes:
        """Return the datagram of a request for a burst; `sequence` must never have been used before."""
        piv = partial_iv(sequence)
        sealed = self._send.encrypt(
            nonce(self._common_iv, self._sender_id, piv), BURST_HEAD + payload, additional_data(self._sender_id, piv)
        )
        head = bytes([_NON_HEAD | len(token), _POST, message_id >> 8, message_id & 0xFF]) + token
        option = bytes([_OPTION_OSCORE | 1 + len(piv) + len(self._sender_id), _FLAG_KID | len(piv)])
        return head + option + piv + self._sender_id + bytes([_MARKER]) + sealed

    def open(self, data: bytes, request_piv: bytes) -> Piece | Refused | None:
        """Return what an answer to the request of this partial IV says, None when it does not verify."""
        at = 4 + (data[0] & 0x0F)
        if data[1] != _CHANGED or len(data) < at + 1 or data[at] & 0xF0 != _OPTION_OSCORE:
            return Refused(None)
        size = data[at] & 0x0F
        end = at + 1 + size
        piv = data[at + 2 : end]
        if len(data) < end + 2 + _TAG_BYTES or data[end] != _MARKER or len(piv) > _PIV_BYTES_MAX:
            return None
        if size and (data[at + 1] != len(piv) or not piv):
            return None
        iv = (
            nonce(self._common_iv, self._recipient_id, piv)
            if piv
            else nonce(self._common_iv, self._sender_id, request_piv)
        )
        try:
            plain = self._receive.decrypt(iv, data[end + 1 :], additional_data(self._sender_id, request_piv))
        except InvalidTag:
            return None
        if plain[0] != _CONTENT:
            return Refused(plain[0])
        if len(plain) < 4 or plain[1] != _MARKER:
            return None
        return Piece(plain[2], plain[3:])


class AnswererCipher:
    """The keys of one context, ready for use from the side that answers with bursts."""

    __slots__ = ("_common_iv", "_send", "_sender_id")

    def __init__(self, sender_key: bytes, common_iv: bytes, sender_id: bytes) -> None:
        """Take what `derive_keys` made of a context."""
        self._send = AESCCM(sender_key, _TAG_BYTES)
        self._common_iv, self._sender_id = common_iv, sender_id

    def answer(self, request: ProtectedRequest, piece: Piece, *, message_id: int, sequence: int) -> bytes:
        """Return the datagram of one answer; `sequence` must never have been used before."""
        piv = partial_iv(sequence)
        plain = bytes([_CONTENT, _MARKER, piece.ordinal]) + piece.data
        aad = additional_data(request.kid, request.partial_iv)
        sealed = self._send.encrypt(nonce(self._common_iv, self._sender_id, piv), plain, aad)
        head = bytes([_NON_HEAD | len(request.token), _CHANGED, message_id >> 8, message_id & 0xFF]) + request.token
        return head + bytes([_OPTION_OSCORE | 1 + len(piv), len(piv)]) + piv + bytes([_MARKER]) + sealed

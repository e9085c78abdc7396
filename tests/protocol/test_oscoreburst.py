"""Bursts under OSCORE: aiocoap's own context opens what is sealed here, and the reverse; nothing else opens."""

from __future__ import annotations

import pytest
from aiocoap.message import Message
from aiocoap.numbers import codes
from hypothesis import given
from hypothesis import strategies as st

from protocol.oscore import LinkContext, Secrets
from protocol.oscoreburst import BURST_HEAD, AnswererCipher, AskerCipher, Piece, Refused, partial_iv
from protocol.oscorebytes import Cipher, ProtectedRequest, inner_response, parse, response

SECRET = b"0123456789abcdef"


def context(sender: bytes, recipient: bytes) -> LinkContext:
    return LinkContext(
        Secrets(SECRET, b"salt", sender, recipient), first_sequence=0, reserve=lambda below: None, echo=None
    )


TRUCK, GATEWAY = context(b"\x00", b"abc"), context(b"abc", b"\x00")
ASKER = AskerCipher(TRUCK.sender_key, TRUCK.recipient_key, TRUCK.common_iv, TRUCK.sender_id, TRUCK.recipient_id)
ANSWERER = AnswererCipher(GATEWAY.sender_key, GATEWAY.common_iv, GATEWAY.sender_id)
SERVER = Cipher(GATEWAY.recipient_key, GATEWAY.sender_key, GATEWAY.common_iv, GATEWAY.recipient_id)


def asked(sequence: int = 7) -> ProtectedRequest:
    request = parse(ASKER.request(b"want", token=b"tk", message_id=513, sequence=sequence))
    assert request is not None
    return request


@pytest.mark.parametrize("sequence", [0, 1, 255, 256, 70_000])
def test_a_request_is_what_the_gateway_and_aiocoap_open(sequence: int) -> None:
    request = asked(sequence)
    assert (request.token, request.kid, request.sequence) == (b"tk", b"\x00", sequence)
    assert SERVER.open(request) == BURST_HEAD + b"want"
    outer = Message.decode(ASKER.request(b"want", token=b"tk", message_id=513, sequence=sequence))
    inner, _ = context(b"abc", b"\x00").unprotect(outer)
    assert (inner.code, inner.opt.uri_path, inner.payload) == (codes.FETCH, ("b",), b"want")


@pytest.mark.parametrize("sequence", [0, 300, 1 << 20])
def test_an_answer_with_a_number_of_its_own_opens_here_and_in_aiocoap(sequence: int) -> None:
    truck = context(b"\x00", b"abc")
    message = Message(code=codes.FETCH, uri_path=["b"], payload=b"want")
    protected, request_id = truck.protect(message)
    protected.token, protected.mid = b"t", 1
    protected.mtype = 1
    request = parse(protected.encode())
    assert request is not None
    data = ANSWERER.answer(request, Piece(5, b"piece"), message_id=9, sequence=sequence)
    assert ASKER.open(data, request.partial_iv) == Piece(5, b"piece")
    inner, _ = truck.unprotect(Message.decode(data), request_id)
    assert (inner.code, inner.payload) == (codes.CONTENT, b"\x05piece")


def test_an_answer_under_the_nonce_of_its_request_is_understood() -> None:
    request = asked()
    sealed = SERVER.seal(request, inner_response(0x45, b"\x00piece"))
    assert ASKER.open(response(request, 1, sealed), request.partial_iv) == Piece(0, b"piece")
    refused = SERVER.seal(request, inner_response(0x84, b""))
    assert ASKER.open(response(request, 1, refused), request.partial_iv) == Refused(0x84)


def test_an_answer_opens_for_its_own_request_only() -> None:
    data = ANSWERER.answer(asked(7), Piece(0, b"piece"), message_id=9, sequence=1)
    assert ASKER.open(data, partial_iv(7)) is not None
    assert ASKER.open(data, partial_iv(8)) is None


def test_an_unprotected_answer_is_a_refusal_without_a_code() -> None:
    assert ASKER.open(bytes.fromhex("52810001") + b"tk", b"\x07") == Refused(None)


@given(at=st.integers(4, 60), flip=st.integers(1, 255), cut=st.integers(0, 60))
def test_a_damaged_answer_is_never_a_piece(at: int, flip: int, cut: int) -> None:
    data = bytearray(ANSWERER.answer(asked(7), Piece(0, b"p" * 30), message_id=9, sequence=1))
    start = 6 + 1  # behind the token, which the caller looks up, and the option's head
    if start <= at < len(data):
        data[at] ^= flip
        assert not isinstance(ASKER.open(bytes(data), partial_iv(7)), Piece)
    whole = ANSWERER.answer(asked(7), Piece(0, b"p" * 30), message_id=9, sequence=1)
    if cut:
        assert not isinstance(ASKER.open(whole[:-cut] if cut < len(whole) - 6 else whole[:6], partial_iv(7)), Piece)

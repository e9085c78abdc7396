"""OSCORE over bytes against the vectors of RFC 8613, and the one shape of request that it knows."""

from __future__ import annotations

from typing import Any

import pytest
from aiocoap.message import Message
from hypothesis import given
from hypothesis import strategies as st

from protocol.oscorebytes import Cipher, ProtectedRequest, inner_response, parse, response
from tests.protocol.test_oscore import C1, C2, WORKED, Derivation, worked

POST_U = bytes.fromhex("5102 1234 74 96 0a 0102 616263 ff".replace(" ", "")) + bytes(9)


def server(vector: Derivation) -> Cipher:
    keys = (vector.sender_key, vector.recipient_key, vector.common_iv, vector.sender)
    return Cipher(*map(bytes.fromhex, keys))


@pytest.mark.parametrize(
    ("vector", "ciphertext"),
    [
        pytest.param(C1, "612f1092f1776f1c1668b3825e", id="C.4"),
        pytest.param(C2, "4ed339a5a379b0b8bc731fffb0", id="C.5"),
    ],
)
def test_requests_of_the_rfc_open(vector: Derivation, ciphertext: str) -> None:
    request = ProtectedRequest(b"", bytes.fromhex(vector.sender), b"\x14", bytes.fromhex(ciphertext))
    assert server(vector).open(request) == bytes.fromhex("01b3747631")
    assert server(vector).open(ProtectedRequest(b"", request.kid, b"\x15", request.ciphertext)) is None


def test_the_response_of_the_rfc_is_made() -> None:
    """C.7, but for the outer type and code: that one is an acknowledgement to a GET."""
    request = ProtectedRequest(bytes.fromhex("00003974"), b"", b"\x14", b"")
    sealed = server(C1).seal(request, inner_response(0x45, b"Hello World!"))
    datagram = response(request, 0x5D1F, sealed)
    assert datagram.hex() == "54445d1f0000397490ffdbaad1e9a7e7b2a813d3c31524378303cdafae119106"


@worked
def test_our_worked_examples_open_and_are_answered(vector: dict[str, Any]) -> None:
    """All requests; of the answers those under the nonce of the request, to a POST."""
    names = ("truck_sender_key", "gateway_sender_key", "common_iv", "truck_sender_id")
    cipher = Cipher(*(bytes.fromhex(WORKED[name]) for name in names))
    request = parse(bytes.fromhex(vector["request"]))
    assert request is not None
    assert (request.sequence, request.kid.hex()) == (vector["truck_sequence"], WORKED["truck_sender_id"])
    assert cipher.open(request) == bytes.fromhex(vector["request_inner"])
    if vector["request_inner"].startswith("02") and "echo" not in vector:
        sealed = cipher.seal(request, bytes.fromhex(vector["response_inner"]))
        assert response(request, 0x5678, sealed).hex() == vector["response"]


def test_the_parts_of_a_request_are_found() -> None:
    request = parse(POST_U)
    assert request == ProtectedRequest(b"t", b"abc", b"\x01\x02", bytes(9))
    assert request.sequence == 0x0102


@pytest.mark.parametrize(
    "data",
    {
        "nothing": b"",
        "confirmable": b"\x41" + POST_U[1:],
        "version 2": b"\x91" + POST_U[1:],
        "a GET": POST_U[:1] + b"\x01" + POST_U[2:],
        "a token of 9 bytes": b"\x59" + POST_U[1:],
        "an option before": POST_U[:5] + b"\x30\x66" + POST_U[6:],
        "an option behind": POST_U[:12] + b"\x30" + POST_U[12:],
        "a kid context": POST_U[:6] + b"\x1a" + POST_U[7:],
        "no kid": POST_U[:6] + b"\x02" + POST_U[7:],
        "no partial IV": POST_U[:6] + b"\x08" + POST_U[7:],
        "a partial IV of 6 bytes": POST_U[:6] + b"\x0e" + POST_U[7:],
        "a reserved bit": POST_U[:6] + b"\x8a" + POST_U[7:],
        "a partial IV beyond the option": POST_U[:5] + b"\x92\x0d\x01" + POST_U[12:],
        "an option beyond the datagram": POST_U[:9],
        "a ciphertext of a tag alone": POST_U[:-1],
    }.items(),
    ids=lambda item: item[0],
)
def test_any_other_shape_is_not_for_here(data: tuple[str, bytes]) -> None:
    assert parse(data[1]) is None


@given(st.binary(max_size=40), st.integers(0, 12), st.integers(0, 255))
def test_whatever_is_found_is_what_aiocoap_finds(tail: bytes, at: int, value: int) -> None:
    data = bytearray(POST_U[:13] + tail)
    data[at] = value
    request = parse(bytes(data))
    if request is not None:
        message = Message.decode(bytes(data))
        assert (message.token, message.payload) == (request.token, request.ciphertext)
        flags = bytes([8 | len(request.partial_iv)])
        assert message.opt.oscore == flags + request.partial_iv + request.kid
        assert [option.number for option in message.opt.option_list()] == [9]

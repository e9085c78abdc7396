"""EDHOC: who ends up with which secrets, and that no bytes from outside get past the errors of the protocol."""

from __future__ import annotations

import os
import random

import pytest

from protocol import cbor
from protocol.edhoc import EdhocKey, Initiator, Responder, credential, credential_kid, generate_key, kid
from protocol.errors import MalformedError, PeerError, SignatureError

GATEWAY, TRUCK = generate_key(), generate_key()
OFF_CURVE = (7).to_bytes(32, "big")


def initiator(key: EdhocKey = TRUCK, *, link: str = "sat", joining: bool = False) -> Initiator:
    return Initiator(key, GATEWAY.public, link=link, joining=joining)


def pair(*, joining: bool = False, link: str = "sat") -> tuple[Initiator, Responder, bytes]:
    """Return both sides after message_2, and message_2."""
    truck, gateway = initiator(joining=joining, link=link), Responder(GATEWAY)
    return truck, gateway, gateway.answer(truck.message_1(), b"abc")


def mutated(data: bytes, random_: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 3))):
        at = random_.randrange(len(changed) + 1)
        match random_.randrange(4):
            case 0:
                changed[at : at + 1] = random_.randbytes(1)
            case 1:
                del changed[at:]
            case 2:
                changed += random_.randbytes(random_.randrange(1, 80))
            case _:
                changed[at:at] = random_.randbytes(random_.randrange(1, 5))
    return bytes(changed)


def test_both_sides_end_with_the_same_secrets_and_the_link_is_named() -> None:
    truck, gateway, message_2 = pair(link="lte")
    message_3, mine = truck.finish(message_2)
    assert gateway.read_message_3(message_3).kid == kid(TRUCK.public)
    theirs = gateway.finish(TRUCK.credential)
    assert (mine.master_secret, mine.master_salt) == (theirs.master_secret, theirs.master_salt)
    assert (mine.sender_id, mine.recipient_id) == (theirs.recipient_id, theirs.sender_id) == (b"abc", b"\x00")
    assert gateway.link == "lte"


def test_a_joining_truck_sends_its_credential_and_a_known_one_only_a_reference() -> None:
    truck, gateway, message_2 = pair(joining=True)
    message_3, _ = truck.finish(message_2)
    assert gateway.read_message_3(message_3).credential == TRUCK.credential
    known, other, answer = pair()
    short, _ = known.finish(answer)
    assert other.read_message_3(short).credential is None
    assert len(short) < len(message_3)


def test_the_handshake_is_as_short_as_the_budget_of_a_session_assumes() -> None:
    truck, _, message_2 = pair()
    message_3, _ = truck.finish(message_2)
    assert (len(initiator().message_1()), len(message_2), len(message_3)) == (38, 54, 32)


def test_another_gateway_key_is_refused_by_the_truck() -> None:
    truck = initiator()
    message_2 = Responder(generate_key()).answer(truck.message_1(), b"abc")
    with pytest.raises(SignatureError):
        truck.finish(message_2)


def test_another_truck_key_is_refused_by_the_gateway() -> None:
    truck, gateway, message_2 = pair()
    message_3, _ = truck.finish(message_2)
    gateway.read_message_3(message_3)
    with pytest.raises(SignatureError):
        gateway.finish(generate_key().credential)


def test_message_1_with_a_key_off_the_curve_is_refused() -> None:
    with pytest.raises(MalformedError, match="no point"):
        Responder(GATEWAY).answer(b"\xf5\x03\x02\x58\x20" + OFF_CURVE + b"\x00", b"abc")


def test_message_2_with_a_key_off_the_curve_is_refused() -> None:
    truck = initiator()
    truck.message_1()
    with pytest.raises(MalformedError, match="no point"):
        truck.finish(cbor.encode(OFF_CURVE + bytes(20)))


@pytest.mark.parametrize(
    "message_3", [b"", b"\x40", b"\x48" + bytes(8), b"\x5f", b"\xff" * 10, bytes(200), b"\x58\x1e"]
)
def test_message_3_that_is_no_ciphertext_is_refused(message_3: bytes) -> None:
    _, gateway, _ = pair()
    with pytest.raises(MalformedError):
        gateway.read_message_3(message_3)


def test_mutated_messages_raise_nothing_but_the_peers_errors(capfd: pytest.CaptureFixture[str]) -> None:
    random_ = random.Random(1)
    first = initiator().message_1()
    refused = 0
    for _ in range(300):
        try:
            Responder(GATEWAY).answer(mutated(first, random_), b"abc")
        except PeerError:
            refused += 1
    for _ in range(150):
        truck, gateway, message_2 = pair()
        try:
            truck.finish(mutated(message_2, random_))
        except PeerError:
            refused += 1
        message_3 = cbor.encode(os.urandom(random_.randrange(40)))
        with pytest.raises(PeerError):
            gateway.read_message_3(mutated(message_3, random_))
    assert refused > 350
    # A panic in lakers writes to stderr, which nobody caps.
    assert "panicked" not in capfd.readouterr().err


def test_a_list_of_suites_is_read_past() -> None:
    """An initiator that would prefer another suite names ours last (RFC 9528 section 6.3.2)."""
    first = initiator().message_1()
    listed = first[:2] + b"\x82\x03\x02" + first[3:]
    assert len(Responder(GATEWAY).answer(listed, b"abc")) == 54


def test_a_credential_gives_its_key_id_back() -> None:
    assert credential_kid(credential(TRUCK.public)) == kid(TRUCK.public)
    with pytest.raises(MalformedError):
        credential_kid(cbor.encode({8: {1: {1: 2}}}))

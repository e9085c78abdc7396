"""EDHOC between a truck and a gateway: agreement, and every way in which it must fail."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cbor, cose, edhoc
from protocol.edhoc import EdhocKey, Initiator, Responder
from protocol.errors import MalformedError, PeerError, SignatureError
from protocol.oscore import Secrets

GATEWAY = edhoc.generate_key()
TRUCK = edhoc.generate_key()
STRANGER = edhoc.generate_key()
KID = b"\x01\x02\x03"


def begun(
    *, link: str = "sat", joining: bool = False, key: EdhocKey = TRUCK, expected: EdhocKey = GATEWAY
) -> tuple[Initiator, Responder, bytes]:
    """Return both sides after message_2."""
    initiator = Initiator(key, expected.public, link=link, joining=joining)
    responder = Responder(GATEWAY)
    return initiator, responder, responder.answer(initiator.message_1(), KID)


@pytest.mark.parametrize("link", ["a", "sat", "depot-nairobi", "a" * 31])
def test_both_sides_agree_and_the_gateway_learns_truck_and_link(link: str) -> None:
    initiator, responder, message_2 = begun(link=link)
    message_3, ours = initiator.finish(message_2)
    who = responder.read_message_3(message_3)
    theirs = responder.finish(TRUCK.credential)
    assert (who.kid, who.credential, responder.link) == (edhoc.kid(TRUCK.public), None, link)
    assert ours == Secrets(theirs.master_secret, theirs.master_salt, KID, theirs.sender_id)
    assert (theirs.recipient_id, theirs.sender_id) == (KID, b"\x00")
    assert (len(ours.master_secret), len(ours.master_salt)) == (16, 8)


def test_a_joining_truck_shows_its_credential() -> None:
    initiator, responder, message_2 = begun(joining=True)
    message_3, ours = initiator.finish(message_2)
    who = responder.read_message_3(message_3)
    assert who.credential == TRUCK.credential
    assert who.kid == edhoc.credential_kid(TRUCK.credential) == edhoc.kid(TRUCK.public)
    assert responder.finish(who.credential).master_secret == ours.master_secret


def test_two_handshakes_share_no_secret() -> None:
    made = []
    for _ in range(2):
        initiator, _, message_2 = begun()
        made.append(initiator.finish(message_2)[1])
    assert made[0].master_secret != made[1].master_secret
    assert made[0].master_salt != made[1].master_salt


def test_a_gateway_without_the_key_of_the_join_code_is_refused() -> None:
    initiator, _, message_2 = begun(expected=STRANGER)
    with pytest.raises(SignatureError, match="did not prove"):
        initiator.finish(message_2)


def test_a_stranger_that_claims_to_be_the_truck_is_refused() -> None:
    # It has the truck's public key, which is no secret, and its own private key.
    initiator, responder, message_2 = begun(key=EdhocKey(STRANGER.private, TRUCK.public))
    message_3, _ = initiator.finish(message_2)
    assert responder.read_message_3(message_3).kid == edhoc.kid(TRUCK.public)
    with pytest.raises(SignatureError, match="did not prove"):
        responder.finish(TRUCK.credential)


def test_the_credential_of_another_truck_does_not_finish() -> None:
    initiator, responder, message_2 = begun()
    responder.read_message_3(initiator.finish(message_2)[0])
    with pytest.raises(SignatureError):
        responder.finish(STRANGER.credential)


def test_every_changed_byte_of_message_2_is_refused() -> None:
    for at in range(0, 48, 5):
        initiator, _, message_2 = begun()
        with pytest.raises(PeerError):
            initiator.finish(message_2[:at] + bytes([message_2[at] ^ 1]) + message_2[at + 1 :])


def test_every_changed_byte_of_message_3_is_refused() -> None:
    for at in range(0, 32, 3):
        initiator, responder, message_2 = begun()
        message_3, _ = initiator.finish(message_2)
        with pytest.raises(PeerError):
            responder.read_message_3(message_3[:at] + bytes([message_3[at] ^ 1]) + message_3[at + 1 :])


def test_a_changed_message_1_does_not_lead_to_a_session() -> None:
    initiator = Initiator(TRUCK, GATEWAY.public, link="sat", joining=False)
    message_1 = bytearray(initiator.message_1())
    message_1[-1] ^= 1  # C_I
    message_2 = Responder(GATEWAY).answer(bytes(message_1), KID)
    with pytest.raises(SignatureError):
        initiator.finish(message_2)


def test_message_3_of_another_handshake_is_refused() -> None:
    initiator, _, message_2 = begun()
    message_3, _ = initiator.finish(message_2)
    _, other, _ = begun()
    with pytest.raises(PeerError):
        other.read_message_3(message_3)


def test_message_3_without_a_link_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    initiator, responder, message_2 = begun()
    monkeypatch.setattr(edhoc, "EAD_LINK", 30)  # a peer that sends another item than ours
    message_3, _ = initiator.finish(message_2)
    monkeypatch.undo()
    with pytest.raises(MalformedError, match="without the name of its link"):
        responder.read_message_3(message_3)


@pytest.mark.parametrize("link", ["", "SAT", "a b", "../up", "é", "a" * 32])
def test_a_link_that_is_no_name_is_refused(link: str) -> None:
    initiator, responder, message_2 = begun(link=link)
    message_3, _ = initiator.finish(message_2)
    with pytest.raises(MalformedError):
        responder.read_message_3(message_3)


@pytest.mark.parametrize("payload", [b"", b"\xf5", b"\xf4" + bytes(37), bytes(38), b"\xf5" + bytes(37), b"\xf5" * 300])
def test_what_is_no_message_1_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        Responder(GATEWAY).answer(payload, KID)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_both_sides(data: bytes) -> None:
    with pytest.raises(PeerError):
        Responder(GATEWAY).answer(b"\xf5" + data, KID)
    initiator, responder, _ = begun()
    with pytest.raises(PeerError):
        initiator.finish(data)
    with pytest.raises(PeerError):
        responder.read_message_3(data)


def test_a_credential_has_one_form() -> None:
    ccs = edhoc.credential(TRUCK.public)
    assert cbor.decode(ccs) == {2: "", 8: {1: {1: 2, 2: cose.digest(TRUCK.public)[:6], -1: 1, -2: TRUCK.public}}}
    for other in (b"", b"\xa0", cbor.encode({8: {1: {2: "text"}}}), cbor.encode([1]), ccs + b"\x00"):
        with pytest.raises(MalformedError):
            edhoc.credential_kid(other)


def test_a_private_key_is_never_printed() -> None:
    assert TRUCK.private.hex() not in repr(TRUCK)
    assert repr(TRUCK.private) not in repr(TRUCK)


# No point of P-256 has this x coordinate; lakers panics on one, past `except Exception`, and from anybody.
OFF_CURVE = (7).to_bytes(32, "big")


def test_message_1_with_a_key_off_the_curve_is_refused() -> None:
    with pytest.raises(MalformedError, match="no point"):
        Responder(GATEWAY).answer(b"\xf5\x03\x02\x58\x20" + OFF_CURVE + b"\x00", KID)


def test_message_2_with_a_key_off_the_curve_is_refused() -> None:
    initiator, _, _ = begun()
    with pytest.raises(MalformedError, match="no point"):
        initiator.finish(cbor.encode(OFF_CURVE + bytes(20)))


@pytest.mark.parametrize("message_3", [b"", b"\x40", b"\x48" + bytes(8), b"\xff" * 10, bytes(200), b"\x58\x1e"])
def test_message_3_that_is_no_ciphertext_makes_nothing_panic(
    message_3: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    _, responder, _ = begun()
    with pytest.raises(MalformedError):
        responder.read_message_3(message_3)
    assert "panicked" not in capfd.readouterr().err


def test_a_list_of_suites_is_read_past() -> None:
    """An initiator that would prefer another suite names ours last (RFC 9528 section 6.3.2)."""
    first = Initiator(TRUCK, GATEWAY.public, link="sat", joining=False).message_1()
    assert len(Responder(GATEWAY).answer(first[:2] + b"\x82\x03\x02" + first[3:], KID)) == 48

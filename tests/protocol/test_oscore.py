"""Our OSCORE context against the vectors of RFC 8613 appendix C, and what it promises beyond aiocoap's own.

The messages of the RFC are made and read through `LinkContext` itself; C.3 and C.6 need an ID Context, which trucks do
not use, so they have no place here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiocoap import Message, oscore
from aiocoap.numbers import codes
from aiocoap.numbers.types import ACK, CON, NON

from protocol.errors import BudgetExceededError
from protocol.numbers import OSCORE_REPLAY_WINDOW, OSCORE_SEQUENCE_BLOCK
from protocol.oscore import InitiatingContext, LinkContext, Secrets, split_combined

MASTER_SECRET = bytes.fromhex("0102030405060708090a0b0c0d0e0f10")
MASTER_SALT = bytes.fromhex("9e7ca92223786340")


@dataclass(frozen=True)
class Derivation:
    """Inputs and outputs of one derivation vector; `sender` and `recipient` are the client's ids."""

    salt: str
    sender: str
    recipient: str
    sender_key: str
    recipient_key: str
    common_iv: str


C1 = Derivation(
    "9e7ca92223786340",
    "",
    "01",
    "f0910ed7295e6ad4b54fc793154302ff",
    "ffb14e093c94c9cac9471648b4f98710",
    "4622d4dd6d944168eefb54987c",
)
C2 = Derivation(
    "",
    "00",
    "01",
    "321b26943253c7ffb6003b0b64d74041",
    "e57b5635815177cd679ab4bcec9d7dda",
    "be35ae297d2dace910c52e99f9",
)


def context(sender: str, recipient: str, *, salt: str = MASTER_SALT.hex(), sequence: int = 0) -> LinkContext:
    secrets = Secrets(MASTER_SECRET, bytes.fromhex(salt), bytes.fromhex(sender), bytes.fromhex(recipient))
    return LinkContext(secrets, first_sequence=sequence, reserve=lambda below: None, echo=None)


@pytest.mark.parametrize("vector", [pytest.param(C1, id="C.1"), pytest.param(C2, id="C.2")])
def test_key_derivation(vector: Derivation) -> None:
    client = context(vector.sender, vector.recipient, salt=vector.salt)
    assert client.sender_key.hex() == vector.sender_key
    assert client.recipient_key.hex() == vector.recipient_key
    assert client.common_iv.hex() == vector.common_iv
    server = context(vector.recipient, vector.sender, salt=vector.salt)
    assert (server.sender_key, server.recipient_key) == (client.recipient_key, client.sender_key)


@pytest.mark.parametrize(
    ("vector", "plain", "protected"),
    [
        pytest.param(
            C1,
            "44015d1f00003974396c6f63616c686f737483747631",
            "44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e",
            id="C.4",
        ),
        pytest.param(
            C2,
            "440171c30000b932396c6f63616c686f737483747631",
            "440271c30000b932396c6f63616c686f737463091400ff4ed339a5a379b0b8bc731fffb0",
            id="C.5",
        ),
    ],
)
def test_request(vector: Derivation, plain: str, protected: str) -> None:
    client = context(vector.sender, vector.recipient, salt=vector.salt, sequence=20)
    original = Message.decode(bytes.fromhex(plain))
    request = Message(code=codes.GET, uri_path=["tv1"], uri_host="localhost")
    request.mid, request.token, request.mtype = original.mid, original.token, CON
    assert request.encode().hex() == plain
    outer, _ = client.protect(request, kid_context=False)
    outer.mid, outer.token, outer.mtype = original.mid, original.token, CON
    assert outer.encode().hex() == protected
    server = context(vector.recipient, vector.sender, salt=vector.salt)
    inner, _ = server.unprotect(Message.decode(bytes.fromhex(protected)))
    assert (inner.code, inner.opt.uri_path) == (codes.GET, ("tv1",))


@pytest.mark.parametrize(
    ("own_sequence", "protected"),
    [
        pytest.param(False, "64445d1f0000397490ffdbaad1e9a7e7b2a813d3c31524378303cdafae119106", id="C.7"),
        pytest.param(True, "64445d1f00003974920100ff4d4c13669384b67354b2b6175ff4b8658c666a6cf88e", id="C.8"),
    ],
)
def test_response(own_sequence: bool, protected: str) -> None:
    request = bytes.fromhex("44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e")
    server = context("01", "")
    _, request_id = server.unprotect(Message.decode(request))
    if own_sequence:
        request_id.can_reuse_nonce = False
    answer, _ = server.protect(Message(code=codes.CONTENT, payload=b"Hello World!"), request_id)
    answer.mid, answer.token, answer.mtype = 0x5D1F, bytes.fromhex("00003974"), ACK
    assert answer.encode().hex() == protected
    client = context("", "01", sequence=20)
    _, asked = client.protect(Message(code=codes.GET, uri_path=["tv1"]), kid_context=False)
    inner, _ = client.unprotect(Message.decode(bytes.fromhex(protected)), asked)
    assert inner.payload == b"Hello World!"


def received(message: Message) -> Message:
    message.mid, message.token, message.mtype = 1, b"t", CON
    return Message.decode(message.encode())


def pair() -> tuple[LinkContext, LinkContext]:
    return context("aabbcc", "00"), context("00", "aabbcc")


def request(payload: bytes = b"parcels") -> Message:
    return Message(code=codes.POST, uri_path=["u"], payload=payload)


def test_replayed_request_is_refused_and_a_reordered_one_taken_once() -> None:
    truck, gateway = pair()
    sent = [truck.protect(request(b"%d" % n), kid_context=False)[0] for n in range(OSCORE_REPLAY_WINDOW)]
    datagrams = []
    for each in reversed(sent):
        each.mid, each.token, each.mtype = 1, b"t", CON
        datagrams.append(each.encode())
    for datagram in datagrams:
        gateway.unprotect(Message.decode(datagram))
    for datagram in datagrams[:3] + datagrams[-3:]:
        with pytest.raises(oscore.ReplayError):
            gateway.unprotect(Message.decode(datagram))


def test_every_changed_byte_of_a_request_is_refused() -> None:
    truck, _ = pair()
    outer, _ = truck.protect(request(), kid_context=False)
    ciphertext = outer.payload
    for at in range(len(ciphertext)):
        outer.payload = ciphertext[:at] + bytes([ciphertext[at] ^ 1]) + ciphertext[at + 1 :]
        with pytest.raises(oscore.ProtectionInvalid):
            pair()[1].unprotect(received(outer))


def test_another_links_secrets_do_not_open_a_request() -> None:
    truck, _ = pair()
    outer, _ = truck.protect(request(), kid_context=False)
    other = LinkContext(
        Secrets(b"x" * 16, MASTER_SALT, b"\x00", b"\xaa\xbb\xcc"), first_sequence=0, reserve=lambda _: None, echo=None
    )
    with pytest.raises(oscore.ProtectionInvalid):
        other.unprotect(received(outer))


def test_an_answer_to_another_request_is_refused() -> None:
    truck, gateway = pair()
    first, _ = truck.protect(request(), kid_context=False)
    _, second_id = truck.protect(request(), kid_context=False)
    _, request_id = gateway.unprotect(received(first))
    answer, _ = gateway.protect(Message(code=codes.CHANGED, payload=b"ack"), request_id)
    with pytest.raises(oscore.ProtectionInvalid):
        truck.unprotect(received(answer), second_id)


def test_numbers_are_durable_before_they_are_used_and_in_blocks() -> None:
    reserved: list[tuple[int, int]] = []
    truck = context("aabbcc", "00", sequence=1_000)

    def reserve(below: int) -> None:
        reserved.append((truck.sender_sequence_number, below))

    truck._reserve = reserve
    for _ in range(OSCORE_SEQUENCE_BLOCK + 1):
        truck.protect(request(), kid_context=False)
        assert truck.sender_sequence_number <= reserved[-1][1]
    assert reserved == [
        (1_001, 1_000 + OSCORE_SEQUENCE_BLOCK),
        (1_001 + OSCORE_SEQUENCE_BLOCK, 1_000 + 2 * OSCORE_SEQUENCE_BLOCK),
    ]


def test_a_number_that_could_not_be_made_durable_is_not_sent() -> None:
    def reserve(below: int) -> None:
        raise BudgetExceededError("the disk is full")

    secrets = Secrets(MASTER_SECRET, MASTER_SALT, b"a", b"b")
    truck = LinkContext(secrets, first_sequence=0, reserve=reserve, echo=None)
    for _ in range(2):
        with pytest.raises(BudgetExceededError):
            truck.protect(request(), kid_context=False)


def test_without_a_replay_window_the_first_request_is_challenged() -> None:
    truck, _ = pair()
    secrets = Secrets(MASTER_SECRET, MASTER_SALT, b"\x00", b"\xaa\xbb\xcc")
    gateway = LinkContext(secrets, first_sequence=256, reserve=lambda below: None, echo=b"8 random")
    outer, asked = truck.protect(request(), kid_context=False)
    with pytest.raises(oscore.ReplayErrorWithEcho) as challenge:
        gateway.unprotect(received(outer))
    answer, _ = truck.unprotect(received(challenge.value.to_message()), asked)
    assert (answer.code, answer.opt.echo) == (codes.UNAUTHORIZED, b"8 random")
    again = request()
    again.opt.echo = answer.opt.echo
    outer, _ = truck.protect(again, kid_context=False)
    assert gateway.unprotect(received(outer))[0].payload == b"parcels"


def test_the_account_of_a_message_is_kept_on_the_outer_one() -> None:
    truck, _ = pair()
    message = request()
    message.account = "telemetry"
    assert truck.protect(message, kid_context=False)[0].account == "telemetry"
    assert truck.protect(request(), kid_context=False)[0].account is None


def test_message_3_rides_on_every_request_until_an_answer_verifies() -> None:
    message_3 = b"\x58\x20" + bytes(32)
    secrets = Secrets(MASTER_SECRET, MASTER_SALT, b"\xaa\xbb\xcc", b"\x00")
    truck = InitiatingContext(secrets, message_3, first_sequence=0, reserve=lambda below: None, echo=None)
    _, gateway = pair()
    for _ in range(2):
        outer, asked = truck.protect(request(), kid_context=False)
        arrived = received(outer)
        assert arrived.opt.edhoc
        ahead, arrived.payload = split_combined(arrived.payload)
        assert ahead == message_3
        arrived.opt.edhoc = None
        inner, request_id = gateway.unprotect(arrived)
    answer, _ = gateway.protect(Message(code=codes.CHANGED), request_id)
    broken = received(answer)
    broken.payload = bytes(len(broken.payload))
    with pytest.raises(oscore.ProtectionInvalid):
        truck.unprotect(broken, asked)
    assert truck.message_3 == message_3
    truck.unprotect(received(answer), asked)
    outer, _ = truck.protect(request(), kid_context=False)
    assert not outer.opt.edhoc
    assert gateway.unprotect(received(outer))[0].payload == inner.payload


@pytest.mark.parametrize("length", [0, 1, 23, 24, 80, 255])
def test_message_3_and_ciphertext_are_split_where_they_were_joined(length: int) -> None:
    head = bytes([0x40 + length]) if length < 24 else bytes([0x58, length])
    message_3 = head + bytes(length)
    assert split_combined(message_3 + b"ciphertext") == (message_3, b"ciphertext")


@pytest.mark.parametrize(
    "payload", ["", "40", "58", "5820", "5803010203", "5903e8", "60ff", "8041", "ff00", "43010203"]
)
def test_what_cannot_be_split_is_refused(payload: str) -> None:
    with pytest.raises(ValueError, match="message_3"):
        split_combined(bytes.fromhex(payload))


WORKED = json.loads((Path(__file__).resolve().parent.parent / "vectors" / "oscore.json").read_text())
worked = pytest.mark.parametrize("vector", [pytest.param(each, id=each["name"]) for each in WORKED["vectors"]])


def worked_pair(vector: dict[str, Any]) -> tuple[LinkContext, LinkContext]:
    """Return the truck's context and the gateway's of a vector of ours."""
    truck_id, gateway_id = WORKED["truck_sender_id"], WORKED["gateway_sender_id"]
    assert (WORKED["master_secret"], WORKED["master_salt"]) == (MASTER_SECRET.hex(), MASTER_SALT.hex())
    truck = context(truck_id, gateway_id, sequence=vector["truck_sequence"])
    gateway = context(gateway_id, truck_id, sequence=vector.get("gateway_sequence", 0))
    if "echo" in vector:
        gateway.recipient_replay_window = oscore.ReplayWindow(OSCORE_REPLAY_WINDOW, lambda: None)
        gateway.echo_recovery = bytes.fromhex(vector["echo"])
    return truck, gateway


def inner_message(encoded: str) -> Message:
    """Return the message that an inner plaintext stands for."""
    data = bytes.fromhex(encoded)
    message = Message(code=codes.Code(data[0]))
    message.payload = message.opt.decode(data[1:])
    return message


def as_sent(message: Message, message_id: int) -> str:
    message.mid, message.token, message.mtype = message_id, b"\7", NON
    return message.encode().hex()


@worked
def test_our_worked_examples(vector: dict[str, Any]) -> None:
    truck, gateway = worked_pair(vector)
    assert (truck.sender_key.hex(), gateway.sender_key.hex()) == (
        WORKED["truck_sender_key"],
        WORKED["gateway_sender_key"],
    )
    asked, request_id = truck.protect(inner_message(vector["request_inner"]), kid_context=False)
    assert as_sent(asked, 0x1234) == vector["request"]
    arrived = Message.decode(bytes.fromhex(vector["request"]))
    try:
        _, gateway_id = gateway.unprotect(arrived)
    except oscore.ReplayErrorWithEcho as challenge:
        answer = challenge.to_message()
    else:
        answer, _ = gateway.protect(inner_message(vector["response_inner"]), gateway_id)
    assert as_sent(answer, 0x5678) == vector["response"]
    inner, _ = truck.unprotect(Message.decode(bytes.fromhex(vector["response"])), request_id)
    assert bytes([inner.code]) + inner.opt.encode() + (
        b"\xff" + inner.payload if inner.payload else b""
    ) == bytes.fromhex(vector["response_inner"])

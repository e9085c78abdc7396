"""Handshakes that wait for their third message: few, for a while, and each good for one try."""

from __future__ import annotations

import pytest

from gateway import handshakes as module
from gateway.handshakes import Handshakes
from protocol import edhoc
from protocol.edhoc import Initiator
from protocol.errors import PeerError, SignatureError, UntrustedError
from store.fleet.fleet import FleetStore
from tests.gateway.coapside import GATEWAY_KEY, Clock, ScriptedTruck, Side

KID, OTHER = b"abc", b"def"
KEY = edhoc.generate_key()


@pytest.fixture
def waiting(fleet: FleetStore, clock: Clock) -> Handshakes:
    return Handshakes(lambda: {0: GATEWAY_KEY}, fleet, now=clock.monotonic)


def begin(waiting: Handshakes, kid: bytes = KID, *, joining: bool = True, key: edhoc.EdhocKey = KEY) -> bytes:
    """Run a handshake up to message_3 and return that."""
    initiator = Initiator(key, GATEWAY_KEY.public, link="sat", joining=joining)
    return initiator.finish(waiting.begin(initiator.message_1(), kid))[0]


async def test_a_joining_truck_is_known_by_its_credential(waiting: Handshakes) -> None:
    finished = await waiting.finish(KID, begin(waiting))
    assert finished is not None
    secrets, link, who = finished
    assert (secrets.recipient_id, link, who) == (KID, "sat", KEY.credential)


async def test_a_truck_says_which_of_two_keys_it_expects(fleet: FleetStore, clock: Clock) -> None:
    second = edhoc.generate_key()
    handshakes = Handshakes(lambda: {0: GATEWAY_KEY, 1: second}, fleet, now=clock.monotonic)
    for number, key in ((0, GATEWAY_KEY), (1, second)):
        initiator = Initiator(KEY, key.public, link="sat", joining=True, number=number)
        kid = bytes([7, 7, number])
        message_3, secrets = initiator.finish(handshakes.begin(initiator.message_1(), kid))
        finished = await handshakes.finish(kid, message_3)
        assert finished is not None
        assert finished[0].master_secret == secrets.master_secret
        assert secrets.recipient_id == bytes([number])
    stale = Initiator(KEY, GATEWAY_KEY.public, link="sat", joining=True, number=5)
    with pytest.raises(SignatureError):  # a number that is not here is answered with the newest key
        stale.finish(handshakes.begin(stale.message_1(), b"\x07\x08\x09"))


async def test_message_3_counts_once(waiting: Handshakes) -> None:
    message_3 = begin(waiting)
    assert await waiting.finish(KID, message_3) is not None
    assert await waiting.finish(KID, message_3) is None


async def test_message_3_of_another_handshake_is_refused(waiting: Handshakes) -> None:
    first, _ = begin(waiting), begin(waiting, OTHER)
    with pytest.raises(PeerError):
        await waiting.finish(OTHER, first)
    assert await waiting.finish(KID, first) is not None


async def test_a_key_that_nobody_enrolled_is_refused(waiting: Handshakes) -> None:
    with pytest.raises(UntrustedError):
        await waiting.finish(KID, begin(waiting, joining=False))


async def test_a_revoked_truck_is_refused(side: Side, truck: ScriptedTruck) -> None:
    message_3 = begin(side.handshakes, joining=False, key=truck.edhoc_key)
    await side.fleet.revoke_truck(truck.name, side.clock.ms)
    with pytest.raises(UntrustedError):
        await side.handshakes.finish(KID, message_3)


async def test_a_key_id_without_its_key_is_refused(side: Side, truck: ScriptedTruck) -> None:
    """Whoever names a truck's key id but holds another key does not get its session."""
    forged = edhoc.EdhocKey(KEY.private, truck.edhoc_key.public)
    initiator = Initiator(forged, GATEWAY_KEY.public, link="sat", joining=False)
    message_3, _ = initiator.finish(side.handshakes.begin(initiator.message_1(), KID))
    with pytest.raises(SignatureError):
        await side.handshakes.finish(KID, message_3)


async def test_a_flood_of_first_messages_keeps_a_bounded_table(
    waiting: Handshakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PENDING_MAX", 5)
    oldest = begin(waiting)
    message_1 = Initiator(KEY, GATEWAY_KEY.public, link="sat", joining=True).message_1()
    for number in range(5):
        waiting.begin(message_1, bytes([number]) * 3)
    assert len(waiting) == 5
    assert KID not in waiting
    assert await waiting.finish(KID, oldest) is None


async def test_a_handshake_that_is_never_finished_is_forgotten(waiting: Handshakes, clock: Clock) -> None:
    message_3 = begin(waiting)
    clock.pass_s(121.0)
    assert await waiting.finish(KID, message_3) is None
    assert len(waiting) == 0


async def test_what_is_no_first_message_is_not_kept(waiting: Handshakes) -> None:
    for payload in (b"", b"\xf5", b"\xf6" + bytes(40), b"\xf5" + bytes(300)):
        with pytest.raises(PeerError):
            waiting.begin(payload, KID)
    assert len(waiting) == 0

"""The fast lane answers as aiocoap's does, byte for byte, and takes nothing that it should not.

Two gateways are fed the same datagrams, one of them with its fast lane closed. What they send, what they note in the
replay window, count, book and store must be equal, whatever the datagrams are.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import batch, cose
from protocol.messages import Ack, Batch, Parcel, SchemaOffer, Upload, seal
from protocol.numbers import ParcelKind, Precedence
from protocol.oscore import LinkContext, Secrets
from store.fleet.fleet import FleetStore
from tests.gateway.coapside import Clock, ScriptedTruck, Side, open_side, rows_from
from tests.gateway.fleets import NOW_S, SCHEMA, Signers, add_truck, truck_key

T = TypeVar("T")
TRUCK = "ke-arrow"
POST, GET, FETCH, PUT = 2, 1, 5, 3
NON, CON = 1, 0
OSCORE = 9


@dataclass(frozen=True)
class Shot:
    """One datagram: what is inside, how it is protected, what is outside, and how often it comes."""

    payload: str = "batch"
    inner_code: int = POST
    inner_options: tuple[tuple[int, bytes], ...] = ((11, b"u"),)
    outer_code: int = POST
    outer_options: tuple[tuple[int, bytes], ...] = ()
    kind: int = NON
    token: bytes = b"t"
    sequence: str = "next"
    kid: str = "ours"
    damage: str = "none"
    times: int = 1


def encoded_options(options: list[tuple[int, bytes]]) -> bytes:
    """Return options as RFC 7252 section 3.1 has them."""

    def split(value: int) -> tuple[int, bytes]:
        if value < 13:
            return value, b""
        return (13, bytes([value - 13])) if value < 269 else (14, (value - 269).to_bytes(2, "big"))

    out, last = b"", 0
    for number, value in sorted(options, key=lambda option: option[0]):
        (delta, more), (length, longer) = split(number - last), split(len(value))
        out += bytes([delta << 4 | length]) + more + longer + value
        last = number
    return out


class Gun:
    """A truck's end of one session, which shoots what it is told."""

    def __init__(self, number: int) -> None:
        self.secrets = Secrets(number.to_bytes(16, "big"), bytes(8), b"\0", number.to_bytes(3, "big"))
        swapped = Secrets(self.secrets.master_secret, self.secrets.master_salt, self.secrets.recipient_id, b"\0")
        self.context = LinkContext(swapped, first_sequence=0, reserve=lambda below: None, echo=None)
        self.epoch = number
        self.key = truck_key(TRUCK)
        self.parcels = 0
        self.sequence = 0
        self.message_id = 0

    def payload(self, name: str) -> bytes:
        match name:
            case "offer":
                return Upload(
                    (self.sealed(ParcelKind.SCHEMA, SchemaOffer(1, SCHEMA.encoded).encode()),), self.epoch
                ).encode()
            case "batch" | "forged" | "no epoch":
                key = cose.SigningKey(b"x" * 32) if name == "forged" else self.key
                body = Batch(1, None, batch.encode(SCHEMA, rows_from(NOW_S))).encode()
                sealed = self.sealed(ParcelKind.BATCH, body, SCHEMA.digest, key)
                return Upload((sealed,), None if name == "no epoch" else self.epoch).encode()
            case "again":
                self.parcels = max(0, self.parcels - 1)
                return self.payload("batch")
            case "hello":
                return Upload(ask_time=True).encode()
            case "empty":
                return b""
        return b"\xff junk"

    def sealed(self, kind: ParcelKind, payload: bytes, digest: bytes | None = None, key: Any = None) -> bytes:
        self.parcels += 1
        return seal(key or self.key, Parcel(self.epoch, self.parcels, Precedence.NORMAL, kind, payload), TRUCK, digest)

    def shoot(self, shot: Shot) -> bytes:
        """Return the datagram; RFC 8613 by hand, so that what is tested is not what makes the test."""
        payload = self.payload(shot.payload)
        plaintext = bytes([shot.inner_code]) + encoded_options(list(shot.inner_options))
        plaintext += b"\xff" + payload if payload else b""
        piv = self.partial_iv(shot.sequence)
        kid = {"ours": self.context.sender_id, "unknown": b"???", "none": b"", "long": self.context.sender_id * 3}[
            shot.kid
        ]
        context = self.context
        block = bytes([len(context.sender_id)]) + context.sender_id.rjust(7, b"\0") + piv.rjust(5, b"\0")
        nonce = bytes(a ^ b for a, b in zip(block, context.common_iv, strict=True))
        aad = cbor2.dumps(["Encrypt0", b"", cbor2.dumps([1, [10], context.sender_id, piv, b""])])
        ciphertext = AESCCM(context.sender_key, 8).encrypt(nonce, plaintext, aad)
        if shot.damage == "flip":
            ciphertext = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
        elif shot.damage == "cut":
            ciphertext = ciphertext[:8]
        option = bytes([len(piv) | 8]) + piv + kid
        if shot.damage == "context":
            option = bytes([len(piv) | 0x18]) + piv + b"\0" + kid
        elif shot.damage == "reserved":
            option = bytes([option[0] | 0x80]) + option[1:]
        options = encoded_options([(OSCORE, option), *shot.outer_options])
        self.message_id += 1
        head = bytes([0x40 | shot.kind << 4 | len(shot.token), shot.outer_code]) + self.message_id.to_bytes(2, "big")
        return head + shot.token + options + b"\xff" + ciphertext

    def partial_iv(self, how: str) -> bytes:
        used = max(0, self.sequence - 1)
        if how in ("next", "padded"):
            used = self.sequence
            self.sequence += 1
        elif how == "far":
            used = self.sequence = self.sequence + 2_000
            self.sequence += 1
        piv = used.to_bytes(5, "big").lstrip(b"\0") or b"\0"
        return piv.rjust(4, b"\0") if how == "padded" else piv


class Twins:
    """The two gateways, fed and read without a socket between, so that nothing depends on time."""

    def __init__(self, empty: Path, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.sent: list[list[bytes]] = [[], []]
        self.begun = 0
        self.sides = [self.run(self._open(empty, folder / name, fast=name == "fast")) for name in ("fast", "plain")]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _open(self, empty: Path, folder: Path, *, fast: bool) -> Side:
        folder.mkdir()
        shutil.copy(empty, folder / "fleet.db")
        fleet = await FleetStore.open(f"sqlite:///{folder}/fleet.db")
        self.stack.push_async_callback(fleet.close)
        await add_truck(fleet)
        side = await self.stack.enter_async_context(open_side(fleet, folder, Clock(), fast=fast))
        await side.documents.accept(Signers().root_document(), "a test")
        interface, sent = side.context.interface, self.sent[0 if fast else 1]
        interface._transmit = lambda data, remote: bool(sent.append(data) or True)  # type: ignore[method-assign]
        # An acknowledgement of its own would be a matter of the machine's speed.
        type(interface._tuning).EMPTY_ACK_DELAY = 600.0
        await asyncio.sleep(0.05)
        return side

    def begin(self) -> Gun:
        """Give the truck a new session with both."""
        self.begun += 1
        gun = Gun(self.begun)
        for side in self.sides:
            side.clock.pass_s(100.0)
            record = self.run(side.fleet.truck(TRUCK))
            assert record is not None
            self.run(side.peers.add(gun.secrets, "lte", record))
            side.context.interface._ctx.message_id = self.begun
        return gun

    async def _feed(self, side: Side, data: bytes, port: int) -> None:
        before = asyncio.all_tasks()
        ancdata = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, bytes(20))]
        side.context.interface._received(data, ancdata, ("::ffff:127.0.0.1", port, 0, 0))
        while new := asyncio.all_tasks() - before:
            await asyncio.wait(new, timeout=60)

    def feed(self, data: bytes) -> list[bytes]:
        """Feed both the same, and return what both sent."""
        for sent in self.sent:
            sent.clear()
        for side in self.sides:
            # A port for each session: message ids begin anew with it.
            self.run(self._feed(side, data, 10_000 + self.begun))
        fast, plain = self.sent
        assert fast == plain, data.hex()
        return list(fast)

    def noted(self, side: Side, gun: Gun) -> Any:
        """Return all that a lane leaves behind."""
        meter, peer = side.context.meter, side.peers._peers.get(gun.secrets.recipient_id)
        window = peer.context.recipient_replay_window.persist() if peer else None
        sums = {key: tuple(count) for key, count in side.ledger._sums.items() if count != [0, 0]}
        state = self.run(side.fleet.epoch_state(TRUCK, gun.epoch))
        admission = side.admission
        counted = meter.sent, meter.received, meter.refused, meter.malformed, admission.turned_away, admission.held_back
        return window, sums, state, counted, dict(admission._credits), set(admission._trucks)

    def close(self) -> None:
        self.run(self.stack.aclose())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


@pytest.fixture(scope="module")
def twins(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    made = Twins(empty_database, tmp_path_factory.mktemp("twins"))
    yield made
    made.close()


option_value = st.binary(max_size=4)
unusual_options = st.lists(
    st.tuples(st.sampled_from([1, 3, 4, 5, 6, 7, 12, 14, 15, 17, 23, 27, 35, 60, 252, 258, 2049, 65001]), option_value),
    max_size=2,
).map(tuple)
usual = st.builds(
    Shot,
    payload=st.sampled_from(["offer", "batch", "again", "hello", "forged", "no epoch"]),
    token=st.binary(max_size=8),
    sequence=st.sampled_from(["next", "next", "next", "padded", "far"]),
    times=st.sampled_from([1, 1, 2]),
)
unusual = st.builds(
    Shot,
    payload=st.sampled_from(["batch", "hello", "junk", "empty"]),
    inner_code=st.sampled_from([POST, POST, GET, FETCH, PUT, 0, 69]),
    inner_options=st.tuples(
        st.sampled_from([((11, b"u"),), ((11, b"d"),), ((11, b"u"), (11, b"u")), (), ((11, b"\xff"),)]), unusual_options
    ).map(lambda pair: pair[0] + pair[1]),
    outer_code=st.sampled_from([POST, POST, FETCH, GET, 68]),
    outer_options=unusual_options,
    kind=st.sampled_from([NON, CON, 2]),
    token=st.binary(max_size=8),
    sequence=st.sampled_from(["next", "same", "far"]),
    kid=st.sampled_from(["ours", "ours", "unknown", "none", "long"]),
    damage=st.sampled_from(["none", "none", "flip", "cut", "context", "reserved"]),
    times=st.sampled_from([1, 2]),
)


@settings(
    max_examples=int(os.environ.get("FASTLANE_EXAMPLES", "40")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(shots=st.lists(st.one_of(usual, unusual), min_size=1, max_size=8))
def test_both_lanes_answer_and_note_the_same(twins: Twins, shots: list[Shot]) -> None:
    gun = twins.begin()
    for shot in shots:
        data = gun.shoot(shot)
        for _ in range(shot.times):
            twins.feed(data)
    fast, plain = (twins.noted(side, gun) for side in twins.sides)
    assert fast == plain


def test_the_usual_goes_through_the_fast_lane_and_the_unusual_does_not(twins: Twins) -> None:
    lane = twins.sides[0].lane
    gun = twins.begin()

    def taken(shot: Shot) -> int:
        # What the change feed tells of may have the truck's record read again just now.
        twins.run(twins.sides[0].peers.find(gun.secrets.recipient_id))
        before = lane.taken
        twins.feed(gun.shoot(shot))
        return lane.taken - before

    assert [taken(Shot(payload=each)) for each in ("offer", "batch", "hello", "forged", "junk")] == [1] * 5
    assert taken(Shot(inner_options=((11, b"u"), (60, b"\x01")))) == 0
    assert taken(Shot(outer_options=((6, b""),))) == 0
    assert taken(Shot(kind=CON)) == 0
    assert taken(Shot(sequence="same")) == 0
    assert taken(Shot(damage="flip")) == 0
    assert taken(Shot(kid="unknown")) == 0
    assert taken(Shot()) == 1


def test_what_would_be_taken_verifies_once_and_nothing_else_does(twins: Twins) -> None:
    gun = twins.begin()
    peers = twins.sides[0].peers
    genuine = gun.shoot(Shot())
    assert peers.verifies(genuine)
    assert not any(peers.verifies(gun.shoot(Shot(damage="flip", kid=kid))) for kid in ("ours", "unknown"))
    twins.feed(genuine)
    assert not peers.verifies(genuine)


def test_a_doubled_datagram_is_answered_once_and_a_replay_is_refused(twins: Twins) -> None:
    gun = twins.begin()
    data = gun.shoot(Shot(payload="offer"))
    (answer,) = twins.feed(data)
    assert twins.feed(data) == []
    replay = data[:2] + b"\x77\x77" + data[4:]
    (refusal,) = twins.feed(replay)
    assert refusal[1] == 0x81
    assert len(refusal) < len(answer)


async def test_a_truck_gets_its_acknowledgements_through_the_fast_lane(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake()
    await truck.upload(truck.offer())
    assert side.lane.taken == 0, "the first request carries message_3"
    async with asyncio.timeout(60):
        # What the change feed tells of may have the truck's record read again just now: then it is not ready.
        while not side.lane.taken:
            await truck.upload(truck.batch(rows_from(NOW_S)))
    acks = await asyncio.gather(*(truck.upload(truck.batch(rows_from(NOW_S))) for _ in range(100)))
    assert max(ack.cumulative for ack in acks) == truck.sequence
    assert side.context.interface.faults == 0


async def test_a_revoked_truck_finds_the_fast_lane_closed(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake()
    await truck.upload(truck.offer())
    await truck.upload()
    taken = side.lane.taken
    record = await side.fleet.truck(truck.name)
    assert record is not None
    await side.fleet.revoke_truck(truck.name, side.clock.ms)
    side.peers.forget_record(truck.name)
    with pytest.raises(Exception, match="No Object-Security option"):
        await truck.upload(truck.batch(rows_from(NOW_S)))
    assert side.lane.taken == taken


async def test_what_is_not_committed_when_the_gateway_ends_is_not_acknowledged(
    side: Side, truck: ScriptedTruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    await truck.handshake()
    await truck.upload(truck.offer())
    started = asyncio.Event()

    async def never(*_: object) -> Ack:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(side.ingest, "upload", never)
    upload = asyncio.create_task(truck.upload(truck.batch(rows_from(NOW_S)), answer_s=60.0))
    await started.wait()
    sent = side.context.meter.sent
    side.lane.close()
    await asyncio.sleep(0.05)
    assert side.context.meter.sent == sent
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)

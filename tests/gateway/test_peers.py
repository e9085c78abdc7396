"""Contexts: found in memory or in the database, one at a time, and never two with the same numbers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from gateway import peers as module
from gateway.peers import Peers
from protocol.errors import PeerError
from protocol.numbers import OSCORE_SEQUENCE_BLOCK
from protocol.oscore import Secrets
from store.fleet.fleet import FleetStore
from store.fleet.records import Change
from tests.gateway.coapside import Clock
from tests.gateway.fleets import add_truck

A, B, C = b"aaa", b"bbb", b"ccc"


def secrets(kid: bytes) -> Secrets:
    return Secrets(os.urandom(16), os.urandom(8), b"\x00", kid)


@pytest.fixture
def new(fleet: FleetStore, clock: Clock) -> Callable[[], Peers]:
    """Make what a freshly started gateway process has."""
    return lambda: Peers(fleet, entropy=os.urandom, now_ms=clock.now_ms)


@pytest.fixture
def peers(new: Callable[[], Peers]) -> Peers:
    return new()


async def add(peers: Peers, fleet: FleetStore, kid: bytes, truck: str = "ke-arrow", link: str = "sat") -> None:
    if await fleet.truck(truck) is None:
        await add_truck(fleet, truck)
    record = await fleet.truck(truck)
    assert record is not None
    await peers.add(secrets(kid), link, record)


async def test_a_context_outlives_its_process_but_for_its_replay_window(
    peers: Peers, fleet: FleetStore, new: Callable[[], Peers]
) -> None:
    await add(peers, fleet, A)
    found = await new().find(A)
    assert found is not None
    assert (found.truck, found.link) == ("ke-arrow", "sat")
    assert not found.context.recipient_replay_window.is_initialized()
    assert found.context.sender_sequence_number == OSCORE_SEQUENCE_BLOCK, "beyond what the other process may have used"


async def test_requests_that_arrive_together_load_one_context(
    peers: Peers, fleet: FleetStore, new: Callable[[], Peers]
) -> None:
    await add(peers, fleet, A)
    after = new()
    found = await asyncio.gather(*(after.find(A) for _ in range(20)))
    assert len({id(peer) for peer in found}) == 1


async def test_sequence_numbers_are_reserved_once_by_requests_that_arrive_together(
    peers: Peers, fleet: FleetStore, new: Callable[[], Peers]
) -> None:
    await add(peers, fleet, A)
    after = new()
    peer = await after.find(A)
    assert peer is not None
    await asyncio.gather(*(after.ensure_sequences(peer) for _ in range(20)))
    stored = await fleet.context(A)
    assert stored is not None
    assert stored.sender_sequence_reserved == peer.context.reserved_below == 2 * OSCORE_SEQUENCE_BLOCK


async def test_two_processes_never_use_the_same_numbers(
    peers: Peers, fleet: FleetStore, new: Callable[[], Peers]
) -> None:
    await add(peers, fleet, A)
    one, other = new(), new()
    first, second = await one.find(A), await other.find(A)
    assert first is not None
    assert second is not None
    await one.ensure_sequences(first)
    with pytest.raises(PeerError, match="advanced by someone else"):
        await other.ensure_sequences(second)


async def test_a_peer_is_ready_only_while_nothing_about_it_has_to_be_waited_for(
    peers: Peers, fleet: FleetStore, clock: Clock
) -> None:
    await add(peers, fleet, A)
    peer = peers.ready(A)
    assert peer is not None
    assert peer is await peers.find(A)
    assert (A in peers, B in peers, peers.ready(B)) == (True, False, None)
    peer.context.sender_sequence_number = peer.context.reserved_below
    assert peers.ready(A) is None, "sequence numbers have to be reserved"
    peer.context.sender_sequence_number = 0
    clock.pass_s(31.0)
    assert peers.ready(A) is None, "its record has to be read again"
    assert await peers.find(A) is peers.ready(A) is peer
    await fleet.revoke_truck("ke-arrow", clock.ms)
    peers.changed(Change(1, "revoked", "ke-arrow", "", clock.ms))
    assert peers.ready(A) is None


async def test_a_context_that_was_deleted_elsewhere_is_dropped(peers: Peers, fleet: FleetStore) -> None:
    await add(peers, fleet, A)
    peer = await peers.find(A)
    assert peer is not None
    await fleet.delete_contexts("ke-arrow")
    peer.context.sender_sequence_number = OSCORE_SEQUENCE_BLOCK
    with pytest.raises(PeerError):
        await peers.ensure_sequences(peer)
    assert await peers.find(A) is None


async def test_a_kid_of_another_truck_is_never_taken_from_it(
    peers: Peers, fleet: FleetStore, new: Callable[[], Peers]
) -> None:
    await add(peers, fleet, A)
    after = new()
    with pytest.raises(PeerError, match="in use"):
        await add(after, fleet, A, truck="tz-arrow")
    found = await after.find(A)
    assert found is not None
    assert found.truck == "ke-arrow"


async def test_a_free_kid_is_none_of_those_known_or_given_out(fleet: FleetStore, clock: Clock) -> None:
    offered = iter([A, B, C, b"ddd"])
    peers = Peers(fleet, entropy=lambda _: next(offered), now_ms=clock.now_ms)
    await add(peers, fleet, A)
    peers.add_joining(secrets(B), "sat", b"cred")
    assert peers.free_kid({C}) == b"ddd"


async def test_a_new_session_of_a_link_ends_that_links_old_one_only(peers: Peers, fleet: FleetStore) -> None:
    await add(peers, fleet, A, link="sat")
    await add(peers, fleet, B, link="lte")
    await add(peers, fleet, C, link="sat")
    assert [await peers.find(kid) is not None for kid in (A, B, C)] == [False, True, True]


async def test_a_revocation_is_heard_of_by_the_feed_or_after_a_while(
    peers: Peers, fleet: FleetStore, clock: Clock
) -> None:
    await add(peers, fleet, A)
    await fleet.revoke_truck("ke-arrow", clock.ms)
    assert await peers.find(A) is not None, "the feed has not spoken"
    clock.pass_s(31.0)
    assert await peers.find(A) is None
    await add(peers, fleet, B, truck="tz-arrow")
    await fleet.revoke_truck("tz-arrow", clock.ms)
    peers.changed(Change(1, "revoked", "tz-arrow", "", clock.ms))
    assert await peers.find(B) is None


async def test_a_clock_set_back_makes_no_record_fresh_for_ever(peers: Peers, fleet: FleetStore, clock: Clock) -> None:
    await add(peers, fleet, A)
    await fleet.revoke_truck("ke-arrow", clock.ms)
    clock.ms -= 10 * 365 * 86_400_000
    assert await peers.find(A) is None


@pytest.mark.parametrize(("kind", "is_read_again"), [("desired", True), ("gap", True), ("batch", False)])
async def test_a_record_is_read_again_when_the_feed_tells_of_it(
    peers: Peers, fleet: FleetStore, clock: Clock, kind: str, is_read_again: bool
) -> None:
    await add(peers, fleet, A)
    await fleet.set_desired("ke-arrow", bytes(32), b"signed", clock.ms)
    peers.changed(Change(1, kind, "ke-arrow", "", clock.ms))
    record = await peers.record("ke-arrow")
    assert record is not None
    assert (record.desired_digest is not None) is is_read_again


async def test_an_unknown_kid_is_nobody(peers: Peers) -> None:
    assert await peers.find(A) is None


async def test_the_cache_is_bounded_and_what_falls_out_is_loaded_again(
    peers: Peers, fleet: FleetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CACHED_MAX", 2)
    for kid, link in ((A, "sat"), (B, "lte"), (C, "depot")):
        await add(peers, fleet, kid, link=link)
    assert len(peers._peers) == 2
    assert await peers.find(A) is not None
    assert sum(map(len, peers._kids.values())) == len(peers._peers) == 2

"""OSCORE contexts: found by key id; sequence numbers are reserved once."""

import asyncio
from collections.abc import Callable

import pytest

from store.fleet.errors import KidTakenError, StaleContextError
from store.fleet.fleet import FleetStore
from store.fleet.records import ContextRecord


def context(kid: bytes, truck: str = "ke-arrow", link: str = "sat", created_ms: int = 1) -> ContextRecord:
    return ContextRecord(kid, b"peer", truck, link, b"m" * 16, b"salt", 0, created_ms)


@pytest.fixture(autouse=True)
async def _truck(enrol: Callable) -> None:
    await enrol()


async def test_a_context_is_found_by_its_key_id(fleet: FleetStore) -> None:
    await fleet.put_context(context(b"\0\1\2"))
    assert await fleet.context(b"\0\1\2") == context(b"\0\1\2")
    assert await fleet.context(b"\0\1\3") is None
    assert "salt" not in repr(context(b"a"))


async def test_a_truck_has_a_context_for_each_link_and_old_ones_go(fleet: FleetStore) -> None:
    for n, link in enumerate(("sat", "lte", "sat")):
        await fleet.put_context(context(bytes([n]), link=link, created_ms=n))
    assert [each.kid for each in await fleet.all_contexts()] == [b"\1", b"\2"]
    assert await fleet.delete_contexts("ke-arrow", keep_kids=[b"\1"], link="lte") == 0
    assert await fleet.delete_contexts("ke-arrow") == 2


async def test_a_key_id_of_another_link_is_not_taken_and_nothing_is_lost(fleet: FleetStore) -> None:
    kept = context(b"a"), context(b"b", link="lte", created_ms=2)
    for each in kept:
        await fleet.put_context(each)
    with pytest.raises(KidTakenError, match="in use"):
        await fleet.put_context(context(b"a", link="lte"))
    assert await fleet.all_contexts() == list(kept)


async def test_a_block_of_sequence_numbers_is_reserved_by_one_only(fleet: FleetStore, other: FleetStore) -> None:
    await fleet.put_context(context(b"a"))
    await fleet.reserve_sequences(b"a", 256)
    with pytest.raises(StaleContextError):
        await other.reserve_sequences(b"a", 256)
    taken = await asyncio.gather(
        *(store.reserve_sequences(b"a", 512) for store in (fleet, other)), return_exceptions=True
    )
    assert [type(each) for each in taken if each is not None] == [StaleContextError]
    assert (await fleet.context(b"a")).sender_sequence_reserved == 512


async def test_a_deleted_context_reserves_nothing(fleet: FleetStore) -> None:
    with pytest.raises(StaleContextError, match="61"):
        await fleet.reserve_sequences(b"a", 256)

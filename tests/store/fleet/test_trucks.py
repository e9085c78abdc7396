"""Trucks as they are listed, heard and cut off."""

from collections.abc import Callable

import pytest

from store.fleet.errors import UnknownTruckError
from store.fleet.fleet import FleetStore
from store.fleet.records import ContextRecord


async def test_trucks_are_listed_by_name_in_pages_and_by_group(fleet: FleetStore, enrol: Callable) -> None:
    for name, group in (("zm-patel", "zambia"), ("ke-arrow", "kenya"), ("ke-huawei", "kenya")):
        await enrol(name, group=group)
    assert [truck.name for truck in await fleet.trucks()] == ["ke-arrow", "ke-huawei", "zm-patel"]
    assert [truck.name for truck in await fleet.trucks(limit=2)] == ["ke-arrow", "ke-huawei"]
    assert [truck.name for truck in await fleet.trucks(after="ke-huawei")] == ["zm-patel"]
    assert [truck.name for truck in await fleet.trucks(group="kenya")] == ["ke-arrow", "ke-huawei"]


async def test_a_truck_is_found_by_the_id_of_its_credential(fleet: FleetStore, enrol: Callable) -> None:
    truck = await enrol()
    assert await fleet.truck_by_kid_cred(truck.kid_cred) == truck
    assert await fleet.truck_by_kid_cred(b"none") is None


async def test_a_revoked_truck_loses_contexts_and_codes_but_no_history(fleet: FleetStore, enrol: Callable) -> None:
    await enrol()
    await enrol("zm-patel")
    for kid, truck in ((b"a", "ke-arrow"), (b"b", "zm-patel")):
        await fleet.put_context(ContextRecord(kid, b"p", truck, "sat", b"s", b"", 0, 1))
    await fleet.create_enrolment("ke-arrow", "kenya", b"s" * 32, 10**15, "ada", now_ms=1)
    assert await fleet.revoke_truck("ke-arrow", 99)
    assert (await fleet.truck("ke-arrow")).revoked_ms == 99
    assert [context.kid for context in await fleet.all_contexts()] == [b"b"]
    assert [code.redeemed_ms is None for code in await fleet.enrolments()] == [False, False]
    assert not await fleet.revoke_truck("ke-arrow", 100)
    assert not await fleet.revoke_truck("nobody", 100)
    assert (await fleet.truck("ke-arrow")).revoked_ms == 99


async def test_where_and_when_a_truck_was_heard_and_what_it_says_of_itself(fleet: FleetStore, enrol: Callable) -> None:
    await enrol()
    await fleet.heard("ke-arrow", "lte", 55, "[2001:db8::1]:5683")
    await fleet.set_status("ke-arrow", '{"queued": 3}', 56)
    truck = await fleet.truck("ke-arrow")
    assert (truck.last_heard_ms, truck.last_link, truck.last_address) == (55, "lte", "[2001:db8::1]:5683")
    assert (truck.status_json, truck.status_ms) == ('{"queued": 3}', 56)


async def test_a_stranger_is_not_heard(fleet: FleetStore) -> None:
    assert await fleet.truck("nobody") is None
    with pytest.raises(UnknownTruckError, match="nobody"):
        await fleet.heard("nobody", "lte", 55)
    with pytest.raises(UnknownTruckError, match="nobody"):
        await fleet.set_status("nobody", "{}", 55)

"""A one-time code makes one truck, once, in time, under its own name and with keys of its own."""

import asyncio
from collections.abc import Callable

import pytest

from store.fleet.errors import EnrolmentError, EnrolmentReason
from store.fleet.fleet import FleetStore
from store.fleet.records import ContextRecord, TruckRecord

SECRET = b"s" * 32
SIGNING, CREDENTIAL, KID = b"k" * 32, b"credential", b"kid"


async def code(fleet: FleetStore, truck: str = "ke-arrow", secret: bytes = SECRET, expires_ms: int = 200) -> None:
    await fleet.create_enrolment(truck, "kenya", secret, expires_ms, "ada", now_ms=100)


async def refusal(fleet: FleetStore, **changes: object) -> EnrolmentReason:
    values = {
        "secret_sha256": SECRET,
        "truck": "ke-arrow",
        "signing_key": SIGNING,
        "credential": CREDENTIAL,
        "kid_cred": KID,
        "now_ms": 150,
    }
    with pytest.raises(EnrolmentError) as refused:
        await fleet.redeem_enrolment(**(values | changes))
    return refused.value.reason


async def test_a_code_makes_its_truck(fleet: FleetStore) -> None:
    await code(fleet)
    truck = await fleet.redeem_enrolment(SECRET, "ke-arrow", SIGNING, CREDENTIAL, KID, 150)
    assert truck == TruckRecord("ke-arrow", "kenya", SIGNING, CREDENTIAL, KID, 150)
    assert await fleet.truck("ke-arrow") == truck
    (used,) = await fleet.enrolments()
    assert (used.truck, used.created_by, used.redeemed_ms) == ("ke-arrow", "ada", 150)


async def test_a_refused_code_says_why_and_changes_nothing(fleet: FleetStore) -> None:
    await code(fleet)
    assert await refusal(fleet, secret_sha256=b"x" * 32) is EnrolmentReason.UNKNOWN
    assert await refusal(fleet, truck="zm-patel") is EnrolmentReason.OTHER_TRUCK
    assert await refusal(fleet, now_ms=200) is EnrolmentReason.EXPIRED
    assert await fleet.trucks() == []
    await fleet.redeem_enrolment(SECRET, "ke-arrow", SIGNING, CREDENTIAL, KID, 150)
    assert await refusal(fleet) is EnrolmentReason.USED


async def test_two_who_hold_one_code_make_one_truck(fleet: FleetStore, other: FleetStore) -> None:
    await code(fleet)
    takers = [
        store.redeem_enrolment(SECRET, "ke-arrow", bytes([n]) * 32, bytes([n]), bytes([n]), 150)
        for n, store in enumerate((fleet, other, fleet, other), start=1)
    ]
    results = await asyncio.gather(*takers, return_exceptions=True)
    refused = [each.reason for each in results if isinstance(each, EnrolmentError)]
    assert refused == [EnrolmentReason.USED] * 3
    assert len(await fleet.keys_of("ke-arrow")) == 1


@pytest.mark.parametrize("taken", ["signing_key", "credential", "kid_cred"])
async def test_no_two_trucks_share_a_key_and_the_code_stays_good(fleet: FleetStore, taken: str) -> None:
    await code(fleet)
    await code(fleet, "zm-patel", b"z" * 32)
    await fleet.redeem_enrolment(SECRET, "ke-arrow", SIGNING, CREDENTIAL, KID, 150)
    own = {"signing_key": b"q" * 32, "credential": b"q", "kid_cred": b"q"}
    same = {"signing_key": SIGNING, "credential": CREDENTIAL, "kid_cred": KID}[taken]
    assert (
        await refusal(fleet, secret_sha256=b"z" * 32, truck="zm-patel", **(own | {taken: same}))
        is EnrolmentReason.KEY_TAKEN
    )
    await fleet.redeem_enrolment(b"z" * 32, "zm-patel", **own, now_ms=150)


async def test_a_key_that_a_truck_gave_up_is_not_another_trucks(fleet: FleetStore, enrol: Callable) -> None:
    old = await enrol(board=1)
    await enrol(board=2)
    await code(fleet, "zm-patel", b"z" * 32)
    asked = {"secret_sha256": b"z" * 32, "truck": "zm-patel", "signing_key": old.signing_key}
    assert await refusal(fleet, **asked) is EnrolmentReason.KEY_TAKEN


async def test_enrolling_again_replaces_keys_and_contexts_and_keeps_history(fleet: FleetStore, enrol: Callable) -> None:
    first = await enrol(board=1, now_ms=1_000)
    await fleet.put_context(ContextRecord(b"a", b"p", "ke-arrow", "sat", b"s", b"", 0, 1))
    await fleet.revoke_truck("ke-arrow", 1_500)
    second = await enrol(board=2, now_ms=2_000)
    assert second.revoked_ms is None
    assert second.signing_key != first.signing_key
    assert await fleet.contexts_of("ke-arrow") == []
    keys = [(key.signing_key, key.since_ms, key.until_ms) for key in await fleet.keys_of("ke-arrow")]
    assert keys == [(first.signing_key, 1_000, 2_000), (second.signing_key, 2_000, None)]


async def test_a_new_code_voids_the_one_before(fleet: FleetStore) -> None:
    await code(fleet)
    await code(fleet, secret=b"n" * 32)
    assert await refusal(fleet) is EnrolmentReason.UNKNOWN
    await fleet.redeem_enrolment(b"n" * 32, "ke-arrow", SIGNING, CREDENTIAL, KID, 150)


async def test_codes_are_listed_newest_first_in_pages(fleet: FleetStore) -> None:
    for n, truck in enumerate(("a", "b", "c")):
        await code(fleet, truck, bytes([n]) * 32)
    page = await fleet.enrolments(limit=2)
    assert [each.truck for each in page] == ["c", "b"]
    assert [each.truck for each in await fleet.enrolments(after=page[-1].id)] == ["a"]

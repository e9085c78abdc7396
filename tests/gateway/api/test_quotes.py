"""A quote counts what a truck lacks, on the wire and in money, against what is left of its month."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.api.auth import Role
from gateway.budgets import price_milli
from gateway.quoting import Bearer, receipts_bytes, wire_of
from protocol.messages import PackOffer, PackRequest
from protocol.numbers import DocumentKind
from tests.gateway.api.conftest import FILES, World, serve
from tests.gateway.fleets import add_truck

ALL_BYTES = sum(len(data) for data in FILES.values())


async def quote(world: World, **fields: Any) -> Any:
    asked = {"bundle": "maths", "version": "v1", **fields}
    return await world.gateway.ask("POST", "/v1/quotes", json=asked, role=Role.PUBLISHER)


async def test_a_truck_that_has_nothing_pays_for_all(world: World) -> None:
    (truck,) = (await quote(world, trucks=["ke-arrow"])).json["items"]
    assert (truck["truck"], truck["file_bytes"], truck["files"]) == ("ke-arrow", ALL_BYTES, 3)
    links = {each["link"]: each for each in truck["links"]}
    # Without packs that can be made the files stand for the pack.
    assert (truck["pack_bytes"], truck["making"]) == (None, False)
    manifest_bytes = len(world.gateway.signers.manifest(FILES))
    on_wire = wire_of(ALL_BYTES, manifest_bytes, 300, Bearer()).bytes
    assert links["sat"]["wire_bytes"] == links["sat"]["billed_bytes"] == on_wire
    assert links["sat"]["money_milli"] == price_milli(on_wire, 4_500_000)
    assert (links["sat"]["fits"], links["sat"]["days"]) == (True, 0.0)
    assert (links["lte"]["is_priced"], links["lte"]["money_milli"]) == (False, 0)
    assert links["sat"]["usb_saves_bytes"] == on_wire - receipts_bytes()


async def test_files_that_a_truck_applied_are_not_paid_again(world: World) -> None:
    await world.truck.receipt(DocumentKind.MANIFEST, world.manifest, name="maths")
    changed = FILES | {"two/lesson.html": b"two, better"}
    await world.gateway.put_document(world.gateway.signers.manifest(changed, version=2))
    (truck,) = (await quote(world, version="v2", trucks=["ke-arrow"])).json["items"]
    assert (truck["file_bytes"], truck["files"]) == (len(b"two, better"), 1)


async def test_what_does_not_fit_the_month_is_said(world: World) -> None:
    big = world.gateway.signers.manifest({"film.mp4": b"x" * 6_000_000}, version=2)
    await world.gateway.put_document(big)
    (truck,) = (await quote(world, version="v2", trucks=["ke-arrow"])).json["items"]
    assert {each["link"]: each["fits"] for each in truck["links"]} == {"sat": False, "lte": True}


async def test_a_group_is_quoted_in_pages(world: World) -> None:
    await add_truck(world.gateway.fleet, "ke-patel")
    first = (await quote(world, group="kenya", limit=1)).json
    rest = (await quote(world, group="kenya", limit=1, after=first["next"])).json
    assert [each["truck"] for each in first["items"] + rest["items"]] == ["ke-arrow", "ke-patel"]
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400),
        ({"trucks": ["ke-arrow"], "group": "kenya"}, 400),
        ({"trucks": ["nobody"]}, 404),
        ({"trucks": ["ke-arrow"], "version": "v9"}, 404),
        ({"trucks": ["Ke Arrow"]}, 400),
    ],
)
async def test_what_cannot_be_quoted_is_refused(world: World, fields: dict[str, Any], status: int) -> None:
    assert (await quote(world, **fields)).status == status


async def test_a_pack_is_made_once_for_all_trucks_with_the_same_history(world: World, tmp_path: Path) -> None:
    await add_truck(world.gateway.fleet, "ke-patel")
    asked: list[PackRequest] = []

    async def offer(request: PackRequest) -> PackOffer:
        asked.append(request)
        return PackOffer(digest=bytes(32), size=4_096) if len(asked) > 1 else PackOffer(wait_s=5)

    async with serve(world.gateway.fleet, tmp_path, offer_pack=offer) as gateway:

        async def ask() -> Any:
            body = {"bundle": "maths", "version": "v1", "group": "kenya"}
            return (await gateway.ask("POST", "/v1/quotes", json=body)).json["items"]

        assert {(each["pack_bytes"], each["making"]) for each in await ask()} == {(None, True)}
        made = await ask()
    assert {(each["pack_bytes"], each["making"]) for each in made} == {(4_096, False)}
    assert len(asked) == 2
    assert asked[0].held == ()

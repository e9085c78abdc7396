"""A quote counts what a truck lacks, on the wire and in money, against what is left of its month."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.api.auth import Role
from gateway.api.quotes import wire_bytes
from gateway.budgets import price_milli
from protocol.numbers import DocumentKind
from tests.gateway.api.conftest import FILES, World
from tests.gateway.fleets import add_truck

ALL_BYTES = sum(len(data) for data in FILES.values())


async def quote(world: World, **fields: Any) -> Any:
    asked = {"bundle": "maths", "version": "v1", **fields}
    return await world.gateway.ask("POST", "/v1/quotes", json=asked, role=Role.PUBLISHER)


async def test_a_truck_that_has_nothing_pays_for_all(world: World) -> None:
    (truck,) = (await quote(world, trucks=["ke-arrow"])).json["items"]
    assert (truck["truck"], truck["file_bytes"], truck["files"]) == ("ke-arrow", ALL_BYTES, 3)
    links = {each["link"]: each for each in truck["links"]}
    assert links["sat"]["wire_bytes"] == wire_bytes(ALL_BYTES)
    assert links["sat"]["money_milli"] == price_milli(wire_bytes(ALL_BYTES), 4_500_000)
    assert links["sat"]["fits"] is True


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


def test_the_wire_costs_more_than_the_files() -> None:
    assert wire_bytes(0) == 0
    assert wire_bytes(1) == 101
    assert wire_bytes(1024 * 10) == 1024 * 10 + 1000

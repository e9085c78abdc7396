"""Every page of the console over HTTP: who may see it, what it says, and that it is small and asks no other host."""

from __future__ import annotations

import re

import pytest

from gateway.api.auth import Role
from gateway.console.app import PAGES
from gateway.console.assets import assets
from tests.gateway.api.conftest import World
from tests.gateway.console.conftest import Visitor, body_of, text_of

PLAIN = ["/", "/fleet/list", "/trucks/ke-arrow", "/trucks/ke-arrow/config", "/groups/kenya/config", "/bundles",
         "/bundles/maths/v1", "/rollouts", "/budgets", "/alarms", "/report",
         "/keys"]  # fmt: skip
ROLES = {"/rollouts/new": Role.OPERATOR, "/enrol": Role.OPERATOR, "/users": Role.ADMIN, "/audit": Role.ADMIN}
FIRST_VIEW_BYTES_MAX = 150_000


@pytest.mark.parametrize("path", [*PLAIN, *ROLES])
async def test_every_page_is_shown_to_an_admin_in_both_languages(world: World, path: str) -> None:
    for language in ("en", "fr"):
        answer = await Visitor(world.gateway, Role.ADMIN, language).get(path)
        assert answer.status == 200, answer.body
        if path != "/fleet/list":
            assert f'<html lang="{language}">' in body_of(answer)


@pytest.mark.parametrize("path", [*PLAIN, *ROLES])
async def test_who_is_not_signed_in_is_sent_to_the_sign_in_page_and_back(world: World, path: str) -> None:
    answer = await Visitor(world.gateway, None).get(path)
    assert answer.status == 303
    assert answer.headers["Location"] == ("/signin" if path == "/" else f"/signin?next={path}")


@pytest.mark.parametrize(("path", "needs"), ROLES.items())
async def test_a_page_that_changes_things_is_for_its_role(world: World, path: str, needs: Role) -> None:
    answer = await Visitor(world.gateway, Role.VIEWER).get(path)
    assert answer.status == 403
    assert f"this needs the role admin{' or operator' if needs is Role.OPERATOR else ''}" in text_of(answer)


async def test_a_viewer_is_offered_nothing_that_it_may_not_do(world: World) -> None:
    viewer = Visitor(world.gateway, Role.VIEWER)
    for path in PLAIN:
        body = body_of(await viewer.get(path))
        assert "/rollouts/new" not in body
        assert "/revoke" not in body
        assert 'href="/users"' not in body


async def test_the_truck_page_tells_what_the_api_tells(admin: Visitor) -> None:
    page = text_of(await admin.get("/trucks/ke-arrow"))
    for text in ("door.opened", "count=2", "by=teacher", "battery low", "lte", "50.0 kB", "maths"):
        assert text in page, text


async def test_the_first_view_is_small_and_from_here_alone(admin: Visitor) -> None:
    answer = await admin.get("/", **{"Accept-Encoding": "gzip"})
    body = body_of(answer)
    addresses = re.findall(r'(?:src|href|data-shapes)="(/static/[^"]+)"', body)
    sizes = [len(answer.body)]
    for address in addresses:
        part = await admin.get(address, **{"Accept-Encoding": "gzip"})
        assert (part.status, part.headers["Content-Encoding"]) == (200, "gzip")
        assert "immutable" in part.headers["Cache-Control"]
        sizes.append(len(part.body))
    assert len(addresses) >= 8
    assert sum(sizes) <= FIRST_VIEW_BYTES_MAX, sizes
    assert "http://" not in body
    assert "https://" not in body
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_vendored_parts_name_their_licence() -> None:
    from importlib.resources import files

    folder = files("gateway.console").joinpath("static", "vendor")
    readme = folder.joinpath("README.md").read_text()
    for name in assets():
        if name.startswith("vendor/"):
            assert name.removeprefix("vendor/") in readme
    for licence in re.findall(r"LICENSE\.[a-z-]+", readme):
        assert folder.joinpath(licence).read_text()


async def test_an_unknown_truck_and_a_wrong_address_are_pages_that_say_so(admin: Visitor) -> None:
    for path, status in (("/trucks/xx-none", 404), ("/trucks/..%2f", 404), ("/bundles/maths/9", 404)):
        answer = await admin.get(path)
        assert answer.status == status
        assert answer.headers["Content-Type"].startswith("text/html")
    assert (await admin.get("/?after=" + "9" * 300)).status == 400


def test_every_page_has_an_address_of_its_own() -> None:
    places = [(each.method, each.path) for each in PAGES]
    assert len(set(places)) == len(places)


async def test_text_from_outside_is_never_markup(world: World) -> None:
    await world.truck.event("x<script>alert(1)</script>"[:24], values_json='{"v":"<img src=x onerror=alert(1)>"}')
    body = body_of(await Visitor(world.gateway, Role.ADMIN).get("/trucks/ke-arrow"))
    assert "<img src=x" not in body
    assert "<script>alert" not in body
    assert "&lt;img src=x" in body

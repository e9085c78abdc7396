"""Bundles say what they hold and what is still to be uploaded."""

from __future__ import annotations

from gateway.api.auth import Role
from tests.gateway.api.conftest import FILES, OCTETS, Gateway, World


async def test_a_bundle_names_the_files_that_are_missing(world: World) -> None:
    shown = (await world.gateway.get("/v1/bundles/maths/v1")).json
    assert [(each["path"], each["here"]) for each in shown["items"]] == [
        ("index.html", True),
        ("one/lesson.html", False),
        ("two/lesson.html", False),
    ]
    assert shown["missing_files"] == 2
    assert shown["missing_bytes"] == len(FILES["one/lesson.html"]) + len(FILES["two/lesson.html"])
    missing = (await world.gateway.get("/v1/bundles/maths/v1?missing=true")).json
    assert len(missing["items"]) == 2
    for each in missing["items"]:
        await world.gateway.ask(
            "PUT", f"/v1/blobs/{each['digest']}", data=FILES[each["path"]], headers=OCTETS, role=Role.PUBLISHER
        )
    done = (await world.gateway.get("/v1/bundles/maths/v1?missing=true")).json
    assert (done["items"], done["missing_files"], done["missing_bytes"]) == ([], 0, 0)


async def test_files_are_paged_by_path(world: World) -> None:
    found, after = [], ""
    for _ in range(5):
        page = (await world.gateway.get(f"/v1/bundles/maths/v1?limit=2{after}")).json
        found += [each["path"] for each in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == sorted(FILES)


async def test_versions_are_listed_in_pages(gateway: Gateway) -> None:
    for version in (1, 2, 3):
        signed = gateway.signers.manifest({"a.html": b"%d" % version}, version=version)
        assert (await gateway.put_document(signed, role=Role.PUBLISHER)).status == 201
    first = (await gateway.get("/v1/bundles?limit=2")).json
    rest = (await gateway.get(f"/v1/bundles?limit=2&after={first['next']}")).json
    assert [(each["version"], each["number"]) for each in first["items"] + rest["items"]] == [
        ("v1", 1),
        ("v2", 2),
        ("v3", 3),
    ]
    assert rest["next"] is None


async def test_a_version_that_was_not_published_is_not_found(world: World) -> None:
    for path in ("maths/v9", "physics/v1", "maths/..", "Maths/v1"):
        assert (await world.gateway.get(f"/v1/bundles/{path}")).status == 404

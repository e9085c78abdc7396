"""The audit log shows who did what, and whether it was tampered with."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.gateway.api.conftest import World


async def test_changes_are_listed_newest_first_in_pages(world: World) -> None:
    first = (await world.gateway.get("/v1/audit?limit=4")).json
    rest = (await world.gateway.get(f"/v1/audit?limit=3&after={first['next']}")).json
    assert [each["action"] for each in first["items"] + rest["items"]] == [
        "alarm.raised",
        "blob.put",
        "rollout.put",
        "manifest.put",
        "config.put",
        "delegation.put",
        "root.put",
    ]
    assert first["items"][0]["previous"] == first["items"][1]["hash"]


async def test_the_chain_holds_until_somebody_edits_it(world: World, tmp_path: Path) -> None:
    whole = (await world.gateway.get("/v1/audit/check")).json
    assert (whole["rows"], whole["broken_at"]) == (13, None)
    with sqlite3.connect(tmp_path / "fleet.db") as connection:
        connection.execute("UPDATE audit_log SET actor = 'somebody-else' WHERE id = 2")
    connection.close()
    broken = (await world.gateway.get("/v1/audit/check")).json
    assert broken["broken_at"] == 2

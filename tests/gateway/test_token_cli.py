"""`digitruck-gateway token`: a way in when every token is void."""

from __future__ import annotations

import asyncio
from pathlib import Path

from click.testing import CliRunner

from gateway.__main__ import main
from gateway.api.auth import token_sha256
from gateway.daemon import folder_lock, initialise
from store.fleet.fleet import FleetStore


def test_a_token_made_on_the_machine_is_an_admins(tmp_path: Path) -> None:
    config, _ = asyncio.run(initialise(tmp_path / "gateway", coap="127.0.0.1:5683", http="127.0.0.1:8080"))
    command = ["token", "new", "asha", "--role", "admin", "--config", str(config)]
    made = CliRunner().invoke(main, command)
    assert made.exit_code == 0, made.output

    async def role() -> str | None:
        fleet = await FleetStore.open(f"sqlite:///{tmp_path / 'gateway' / 'fleet.db'}")
        try:
            record = await fleet.token(token_sha256(made.output.strip()))
        finally:
            await fleet.close()
        return None if record is None else record.role

    assert asyncio.run(role()) == "admin"
    assert "another name" in CliRunner().invoke(main, command).output
    lock = folder_lock(tmp_path / "gateway")
    lock.take()
    assert CliRunner().invoke(main, ["token", "new", "juma", "--role", "admin", "--config", str(config)]).exit_code == 1
    lock.release()

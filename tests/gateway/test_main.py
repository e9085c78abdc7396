"""`digitruck-gateway`: every command says what it does and what went wrong; a restore brings back no session."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from gateway.daemon import folder_lock
from store.fleet.fleet import FleetStore
from store.fleet.records import ContextRecord
from tests.gateway.fleets import NOW_MS, add_truck

COMMANDS = sorted(main.commands)


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    result = run("init", tmp_path / "data", "--coap", "127.0.0.1:5683")
    assert result.exit_code == 0, result.output
    return tmp_path / "data" / "gateway.toml"


def with_fleet(config: Path, work: object) -> object:
    async def inside() -> object:
        fleet = await FleetStore.open(f"sqlite:///{config.parent}/fleet.db")
        try:
            return await work(fleet)  # type: ignore[operator]
        finally:
            await fleet.close()

    return asyncio.run(inside())


async def enrol(fleet: FleetStore) -> None:
    await add_truck(fleet)
    await fleet.put_context(ContextRecord(b"kid", b"\0", "ke-arrow", "sat", b"m" * 16, b"s" * 8, 256, NOW_MS))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"digitruck-gateway {command}" in result.output
    assert main.commands[command].short_help or main.commands[command].help


def test_the_commands_are_those_of_the_contract() -> None:
    assert {"init", "serve", "demo", "check", "migrate", "backup", "restore", "scrub"} <= set(COMMANDS)
    assert isinstance(main, click.Group)


def test_init_prints_the_token_and_the_next_step(tmp_path: Path) -> None:
    result = run("init", tmp_path / "data", "--coap", "gw.example.org:5700")
    assert "first token" in result.output
    assert "digitruck-gateway serve" in result.output
    again = run("init", tmp_path / "data")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert "holds a gateway already" in again.stderr


@pytest.mark.parametrize("args", [(), ("--json",)])
def test_check_and_scrub_of_a_sound_gateway(config: Path, args: tuple[str, ...]) -> None:
    for command in ("check", "scrub"):
        result = run(command, "--config", config, *args)
        assert result.exit_code == 0, result.output
        if args:
            assert json.loads(result.output)


def test_scrub_of_a_damaged_database_fails(config: Path) -> None:
    async def damage(fleet: FleetStore) -> None:
        truck = await add_truck(fleet)
        await truck.register()
        async with fleet._database.write() as transaction:
            from sqlalchemy import text

            await transaction.execute(text("UPDATE parcels SET sealed = x'00' || substr(sealed, 2)"))
            await transaction.execute(text("UPDATE parcels SET link = 'usb'"))

    with_fleet(config, damage)
    result = run("scrub", "--config", config, "--json")
    assert result.exit_code == 1
    assert "ke-arrow" in json.loads(result.output)["damaged"]


def test_a_missing_configuration_or_database_is_one_line_that_says_what_to_do(tmp_path: Path, config: Path) -> None:
    missing = run("check", "--config", tmp_path / "none.toml")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "digitruck-gateway init" in missing.stderr
    (config.parent / "fleet.db").unlink()
    gone = run("check", "--config", config)
    assert (gone.exit_code, "migrate" in gone.stderr) == (1, True)
    assert run("migrate", "--config", config).exit_code == 0
    assert run("check", "--config", config).exit_code == 0


def test_wrong_use_has_exit_code_2() -> None:
    assert run("backup").exit_code == 2
    assert run("nonsense").exit_code == 2


def test_a_backup_is_restored_without_sessions_and_what_was_there_is_kept(config: Path, tmp_path: Path) -> None:
    with_fleet(config, enrol)
    backup = tmp_path / "fleet-backup.db"
    assert run("backup", backup, "--config", config).exit_code == 0
    assert "exists" in run("backup", backup, "--config", config).stderr
    with_fleet(config, lambda fleet: add_truck(fleet, "tz-arrow"))
    result = run("restore", backup, "--config", config)
    assert result.exit_code == 0, result.output
    assert "key anew" in result.output

    async def look(fleet: FleetStore) -> tuple[list[str], int]:
        return [truck.name for truck in await fleet.trucks()], len(await fleet.all_contexts())

    assert with_fleet(config, look) == (["ke-arrow"], 0)
    assert (config.parent / "fleet.db.before-1").exists()


def test_a_restore_keeps_what_was_revoked_since(config: Path, tmp_path: Path) -> None:
    with_fleet(config, enrol)
    run("backup", tmp_path / "b.db", "--config", config)
    with_fleet(config, lambda fleet: fleet.revoke_truck("ke-arrow", NOW_MS))
    result = run("restore", tmp_path / "b.db", "--config", config)
    assert "1 revocations" in result.output

    async def revoked(fleet: FleetStore) -> bool:
        truck = await fleet.truck("ke-arrow")
        return truck is not None and truck.revoked_ms is not None

    assert with_fleet(config, revoked)


def test_a_running_gateway_is_not_restored_over(config: Path, tmp_path: Path) -> None:
    run("backup", tmp_path / "b.db", "--config", config)
    lock = folder_lock(config.parent)
    lock.take()
    try:
        for args in (("restore", tmp_path / "b.db"), ("migrate",)):
            result = run(*args, "--config", config)
            assert (result.exit_code, "stop it first" in result.stderr) == (1, True)
    finally:
        lock.release()
    assert run("restore", tmp_path / "b.db", "--config", config).exit_code == 0


def test_a_postgresql_gateway_is_told_its_own_tools(config: Path, tmp_path: Path) -> None:
    config.write_text('database = "postgresql://127.0.0.1/fleet"\n')
    result = run("restore", tmp_path / "b.db", "--config", config)
    assert (result.exit_code, "pg_restore" in result.stderr) == (1, True)

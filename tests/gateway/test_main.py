"""`digitruck-gateway`: every command says what it does and what went wrong."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import add_truck

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


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"digitruck-gateway {command}" in result.output
    assert main.commands[command].short_help or main.commands[command].help


def test_the_commands_are_those_of_the_contract() -> None:
    assert {
        "init",
        "serve",
        "demo",
        "check",
        "migrate",
        "backup",
        "backup-key",
        "restore",
        "scrub",
        "unit",
        "seal-keys",
    } <= set(COMMANDS)
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

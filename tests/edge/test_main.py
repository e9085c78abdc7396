"""`digitruck-edge`: every help has an example, errors are one line with the next step, exit codes are kept."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from edge.__main__ import main
from edge.daemon import Edge
from tests.edge.rig import Rig, until


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


def write_config(folder: Path, edge: Edge | None = None, **settings: Any) -> str:
    host, port = ("127.0.0.1", 1) if edge is None else edge.classroom.address
    path = folder / "edge.toml"
    lines = [
        'data = "ke-arrow"',
        "collector = []",
        *(f"{key} = {json.dumps(value)}" for key, value in settings.items()),
    ]
    path.write_text("\n".join([*lines, "[classroom]", f'listen = "{host}:{port}"', "[[link]]", 'name = "lte"']) + "\n")
    return str(path)


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_every_command_has_a_help_with_an_example(path: tuple[str, ...]) -> None:
    result = call(*path, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n +digitruck-edge .*{path[-1]}", result.output), result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("join",),
        ("put",),
        ("put", "no-sign"),
        ("put", "water=high"),
        ("event", "door", "side"),
        ("event", "door", "--precedence", "soon"),
        ("status", "--yaml"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2_and_names_the_way_out(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    config = () if arguments[0] == "nonsense" else ("--config", write_config(tmp_path))
    result = call(*arguments, *config)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "next_step"),
    [
        (("run",), "digitruck-edge join CODE"),
        (("status",), "digitruck-edge join CODE"),
        (("linkcheck",), "digitruck-edge run"),
        (("put", "water=1"), "digitruck-edge run"),
        (("event", "door"), "digitruck-edge run"),
        (("join", "DT1-NOTACODE"), "copy it again"),
        (("join", "hello"), "ask the operator for a new one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_error_is_one_line_with_the_next_step_and_exit_code_1(
    tmp_path: Path, arguments: tuple[str, ...], next_step: str
) -> None:
    result = call(*arguments, "--config", write_config(tmp_path))
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("digitruck-edge: ")]
    assert next_step in line
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["run", "status", "check"])
def test_a_configuration_that_is_not_there_or_wrong_is_named(tmp_path: Path, command: str) -> None:
    missing = call(command, "--config", str(tmp_path / "absent.toml"))
    assert (missing.exit_code, "absent.toml" in missing.stderr) == (1, True)
    wrong = call(command, "--config", write_config(tmp_path, month_bytes=3))
    assert (wrong.exit_code, "month_bytes" in wrong.stderr) == (1, True)


def test_check_tries_each_collector_once_and_fails_if_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text('[[collector]]\nkind = "host"\nname = "host"\n')
    good = call("check", "--config", str(path), "--json")
    assert good.exit_code == 0
    assert json.loads(good.stdout)[0]["name"] == "host"
    path.write_text('[[collector]]\nkind = "replay"\nname = "old"\nfile = "/nowhere/at/all.csv"\n')
    bad = call("check", "--config", str(path))
    assert bad.exit_code == 1
    assert "/nowhere/at/all.csv" in bad.stdout


async def ask(*arguments: str) -> Result:
    return await asyncio.to_thread(call, *arguments)


async def test_a_running_daemon_takes_records_and_events_and_tells_its_state(rig: Rig) -> None:
    edge = await rig.start(await rig.join())
    config = write_config(rig.tmp_path, edge)
    assert (await ask("put", "water.level=0.83", "hours=1204", "--config", config)).exit_code == 0
    event = await ask("event", "door.opened", "--precedence", "flash", "side=rear", "count=3", "--config", config)
    assert event.exit_code == 0
    assert re.fullmatch(r"queued as parcel \d+\n", event.stdout)

    async def arrived() -> bool:
        return "door.opened" in await rig.hub.names()

    await until(arrived)
    (opened,) = [each for each in await rig.hub.events() if each.name == "door.opened"]
    assert json.loads(opened.values_json) == {"side": "rear", "count": 3}
    shown = await ask("status", "--config", config)
    assert "truck ke-arrow" in shown.stdout
    as_json = json.loads((await ask("status", "--json", "--config", config)).stdout)
    assert as_json["truck"] == "ke-arrow"
    links = await ask("linkcheck", "--config", config)
    assert re.match(r"lte: works, round trip \d+ ms, loss \d+%, heard \d+ s ago\n  tariff  free\n", links.stdout)
    assert re.search(r"\n  spent   [0-9.]+ k?B, 0.00 USD; no cap\n", links.stdout)
    assert json.loads((await ask("linkcheck", "--json", "--config", config)).stdout)[0]["name"] == "lte"


async def test_what_the_daemon_refuses_is_told_in_its_words(rig: Rig) -> None:
    edge = await rig.start(await rig.join())
    config = write_config(rig.tmp_path, edge)
    refused = await ask("event", "Door Opened", "--config", config)
    assert refused.exit_code == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "name" in refused.stderr


async def test_status_of_a_stopped_truck_comes_from_its_databases(rig: Rig) -> None:
    await rig.join()
    result = await ask("status", "--json", "--config", write_config(rig.tmp_path))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["truck"] == "ke-arrow"
    assert "not running" in result.stderr


async def test_another_service_on_the_port_is_named(rig: Rig) -> None:
    data = await rig.join()
    assert data.exists()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhi !")
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        path = Path(write_config(rig.tmp_path))
        path.write_text(path.read_text().replace("127.0.0.1:1", f"127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        result = await ask("status", "--config", str(path))
    assert result.exit_code == 1
    assert "not this daemon" in result.stderr


async def test_joining_writes_a_configuration_that_runs(rig: Rig) -> None:
    config = rig.tmp_path / "new" / "edge.toml"
    joined = await ask("join", await rig.hub.code(), "--config", str(config))
    assert joined.exit_code == 0, joined.stderr
    assert "this truck is ke-arrow of group kenya" in joined.stdout
    assert f"next: digitruck-edge run --config {config}" in joined.stdout
    assert (config.parent / "data" / "identity" / "enrolment.cbor").exists()


class Process:
    """The daemon as a process of its own."""

    def __init__(self, config: str) -> None:
        command = [sys.executable, "-m", "edge", "run", "--config", config]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    async def ready(self) -> int:
        """Return its HTTP port."""
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        return int(json.loads(line)["classroom"][1])

    async def end(self, number: signal.Signals) -> tuple[int, str]:
        os.kill(self._process.pid, number)
        _, stderr = await asyncio.to_thread(self._process.communicate, None, 20)
        return self._process.returncode, stderr


async def test_a_stop_is_clean_and_a_kill_loses_nothing(rig: Rig) -> None:
    await rig.join()
    path = Path(write_config(rig.tmp_path))
    text = path.read_text() + f'gateways = ["127.0.0.1:{rig.hub.port}"]\n'
    path.write_text(text.replace('127.0.0.1:1"', '127.0.0.1:0"'))
    for number, name in ((signal.SIGTERM, "before.the.stop"), (signal.SIGKILL, "before.the.kill")):
        process = Process(str(path))
        port = await process.ready()
        asked = rig.tmp_path / "asked.toml"
        asked.write_text(text.replace('127.0.0.1:1"', f'127.0.0.1:{port}"'))
        await asyncio.gather(
            *(ask("put", f"x={value}", "--config", str(asked)) for value in range(3)),
            ask("event", name, "--config", str(asked)),
        )
        code, stderr = await process.end(number)
        assert code == (0 if number is signal.SIGTERM else -signal.SIGKILL), stderr
        assert "Traceback" not in stderr
    await rig.start(rig.tmp_path / "ke-arrow")

    async def all_there() -> bool:
        batches = await rig.hub.gateway.fleet.batches("ke-arrow", 0, 2**60)  # type: ignore[union-attr]
        names = await rig.hub.names()
        return {"before.the.stop", "before.the.kill"} <= set(names) and sum(each.rows or 0 for each in batches) == 6

    await until(all_there)

"""The demo itself, for real: one truck, fixed seed, as short as it can be and still show everything."""

import asyncio
import io
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from rich.console import Console

from gateway.demo.children import environment_for, start_child
from gateway.demo.run import DemoOptions, run_demo
from gateway.demo.server import choose_ports
from protocol.errors import LocalError


async def test_the_demo_shows_everything_and_says_that_all_is_well(tmp_path: Path) -> None:
    out = io.StringIO()
    # It ends when everything was seen; the seconds are for a machine that has much else to do.
    options = DemoOptions(trucks=1, seconds=120, folder=tmp_path / "demo", seed=3, until_told=True)
    code = await run_demo(options, Console(file=out, width=200))
    text = out.getvalue()
    assert code == 0, text
    for said in (
        "the first samples are at the gateway",
        "configuration 1 applied",
        "gateway KILLED",
        "lessons 2026.2 verified and active",
        "everything that should work did",
    ):
        assert said in text
    assert not processes_of(tmp_path / "demo")


async def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(LocalError, match="not empty"):
        await run_demo(DemoOptions(folder=tmp_path), Console(file=io.StringIO()))
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_port_that_is_taken_is_refused_when_it_was_asked_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"port {port} is taken"):
            choose_ports(http=port)
        assert choose_ports(usual_http=port).http != port


async def test_a_child_ends_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    environment = environment_for(tmp_path)
    script = tmp_path / "middle.py"
    script.write_text(
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from gateway.demo.children import start_child\n"
        "async def main():\n"
        "    child = await start_child('sleeper', 'http.server', '0', environment=dict(os.environ),\n"
        f"        log=Path({str(tmp_path / 'log')!r}), on_log=lambda event, fields: None)\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    middle = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert middle.stdout is not None
    child = int(await middle.stdout.readline())
    await asyncio.sleep(1.0)  # until it has become the module
    middle.send_signal(signal.SIGKILL)
    await middle.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z (" in Path(f"/proc/{child}/status").read_text():
            return
        await asyncio.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the child lived on")


async def test_what_a_child_said_last_is_in_the_error_when_it_does_not_start(tmp_path: Path) -> None:
    child = await start_child(
        "gateway",
        "gateway",
        "serve",
        "--config",
        str(tmp_path / "none.toml"),
        environment=environment_for(tmp_path),
        log=tmp_path / "log",
        on_log=lambda event, fields: None,
    )
    with pytest.raises(LocalError, match=r"none\.toml"):
        await child.first_words(60)
    await child.end()


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of running processes that name this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if str(folder) in command:
                found.append(command)
    return found

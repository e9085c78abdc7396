"""Real instruments' daemons for the tests, on loopback and on ports of their own; a skip says what is not installed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edge.collectors import run
from edge.collectors.base import Collector, RealClock, Row, SourceError
from edge.collectors.check import format_value
from edge.collectors.run import Supervisor

PATIENCE_S = 60.0
# Debian's upsd in the path is a script that first wants a configuration of the system.
_PLACES = os.pathsep.join(["/lib/nut", os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def program(name: str, package: str) -> str:
    """Return a program's path; skip the test if Debian's `package` is not installed."""
    found = shutil.which(name, path=_PLACES)
    if found is None:
        pytest.skip(f"needs {name}: apt-get install {package}")
    return found


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """Return a port that nobody has at this moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Peer:
    """One daemon as a process, with its own log."""

    def __init__(self, command: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = [str(word) for word in command]
        self.log = folder / f"{Path(self.command[0]).name}.log"
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool]) -> Peer:
        """Start it and wait until `ready`."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, start_new_session=True
            )
        until_s = time.monotonic() + PATIENCE_S
        while not ready():
            told = self.log.read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, f"{self.command[0]} ended: {told}"
            assert time.monotonic() < until_s, f"{self.command[0]} is not ready: {told}"
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End it at once, and whatever it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def listens(port: int) -> Callable[[], bool]:
    """Return a condition: something accepts TCP connections there."""

    def ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return ready


async def take(source: Collector[Any], count: int = 1) -> list[Row]:
    """Return the first rows of a collector that runs by the real clock."""
    rows: list[Row] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(source.rows(RealClock(time.monotonic))) as stream:
        async for row in stream:
            rows.append(row)
            if len(rows) == count:
                break
    return rows


async def sample(source: Collector[Any], like: dict[str, str] | None = None) -> dict[str, str]:
    """Return the first row as a person reads it, by channel; with `like` the first that is so, else the last."""
    found: dict[str, str] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S), aclosing(source.rows(RealClock(time.monotonic))) as stream:
            async for row in stream:
                values = zip(source.channels, row.values, strict=True)
                found = {spec.name: format_value(value, spec) for spec, value in values}
                if like in (None, found):
                    break
    return found


async def failure(source: Collector[Any]) -> str:
    """Return what the collector says about its source when it fails."""
    with pytest.raises(SourceError) as caught:
        await take(source, 10_000)
    return str(caught.value)


class Watched:
    """A supervisor at work over the real clock: the rows that it delivered and the events that it told."""

    def __init__(self, source: Collector[Any]) -> None:
        self.rows: list[tuple[int | None, ...]] = []
        self.supervisor = Supervisor([source], on_row=self._on_row, clock=RealClock(time.monotonic))

    async def _on_row(self, _name: str, _time_s: float, values: tuple[int | None, ...]) -> None:
        self.rows.append(values)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, generously."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def more(self, count: int = 1) -> None:
        """Wait for that many more rows."""
        wanted = len(self.rows) + count
        await self.until(lambda: len(self.rows) >= wanted)

    async def failed(self) -> str:
        """Wait until the source counts as failed; return why."""
        await self.until(lambda: self.supervisor.health()[0].failures > 0)
        return self.supervisor.health()[0].last_error


@asynccontextmanager
async def watched(source: Collector[Any], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """Run a collector under its supervisor, which tries again at once here."""
    monkeypatch.setattr(run, "BACKOFF_S_MIN", 0.05)
    monkeypatch.setattr(run, "BACKOFF_S_MAX", 0.2)
    watch = Watched(source)
    task = asyncio.ensure_future(watch.supervisor.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def liar(*sends: bytes, port: int = 0, hold: bool = False) -> AsyncIterator[int]:
    """Listen on a port and send every caller the same bytes; then close, or say nothing more if `hold`."""
    callers: set[asyncio.StreamWriter] = set()

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.add(writer)
        try:
            for data in sends:
                writer.write(data)
                await writer.drain()
            if not hold:
                writer.write_eof()
            while await reader.read(4096):  # closing over unread bytes would take back what was sent
                pass
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(lie, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in callers:
            writer.transport.abort()

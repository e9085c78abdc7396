"""The processes that the demo starts: each with a log file, what it says at the start, and a certain end.

Every child is the leader of its own process group, so that its workers go with it and Ctrl-C reaches the demo alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gateway
from protocol.errors import LocalError

_END_S = 5.0
_LINE_BYTES_MAX = 1 << 20
_SHOWN_LINES = 5

OnLog = Callable[[str, Mapping[str, Any]], None]
"""Told (the event's name, its fields) for each line of a child's log."""


class Child:
    """One running process; make it with `start_child`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, on_log: OnLog) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._on_log = on_log
        self._last: list[str] = []
        self._reader = asyncio.create_task(self._read_log(), name=f"log-{name}")

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def first_words(self, timeout_s: float) -> Mapping[str, Any]:
        """Return the JSON object that it prints once it is ready; raise `LocalError` if it ends or stays silent."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError as failure:
            raise LocalError(f"{self.name} was not ready within {timeout_s:.0f} s; see {self._log}") from failure
        if not line:
            await self.wait()
            raise LocalError(f"{self.name} ended at its start: {self.last_words}; see {self._log}")
        words: Mapping[str, Any] = json.loads(line)
        return words

    async def wait(self) -> int:
        """Wait until it ends; return its exit code."""
        code = await self._process.wait()
        await asyncio.gather(self._reader, return_exceptions=True)
        return code

    @property
    def last_words(self) -> str:
        """The last lines of its log."""
        return " | ".join(self._last) or "it said nothing"

    async def kill(self) -> None:
        """End it and its workers with SIGKILL, as a power cut would."""
        self._signal(signal.SIGKILL)
        await self.wait()

    async def end(self) -> None:
        """Ask it to end, and kill it if it does not within a few seconds."""
        if self.running:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await self._process.wait()
        await self.kill()

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives its leader while a worker of it lives.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._log.open("ab") as file:
            while True:
                try:
                    line = await self._process.stderr.readline()
                except ValueError:
                    continue  # longer than the limit: the stream has dropped it
                if not line:
                    return
                file.write(line)
                file.flush()
                text = line.decode("utf-8", "replace").rstrip()
                self._last = [*self._last, text][-_SHOWN_LINES:]
                self._tell(text)

    def _tell(self, text: str) -> None:
        if not text.startswith("{"):
            return
        with contextlib.suppress(ValueError):
            fields = json.loads(text)
            if isinstance(fields, dict) and "event" in fields:
                self._on_log(str(fields.pop("event")), fields)


def environment_for(folder: Path) -> dict[str, str]:
    """Return the environment of children: this very code, and byte code compiled once, in `folder` if nowhere else."""
    environment = dict(os.environ)
    code = str(Path(gateway.__path__[0]).parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (code, environment.get("PYTHONPATH"))))
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    return environment


async def start_child(
    name: str,
    module: str,
    *arguments: str,
    environment: Mapping[str, str],
    log: Path,
    on_log: OnLog,
    enter: tuple[str, ...] = (),
) -> Child:
    """Start `python -m module arguments...`; its log (stderr, a JSON object a line) goes to `log` and to `on_log`.

    `enter` goes before it: a command that puts what follows into another place, such as a network namespace.
    """
    process = await asyncio.create_subprocess_exec(
        *enter,
        sys.executable,
        "-m",
        "gateway.demo.leash",
        str(os.getpid()),
        module,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,
        limit=_LINE_BYTES_MAX,
    )
    return Child(name, process, log, on_log)

"""Whether a version that was just activated is fit to stay: what its kind asks for, and the truck's own hooks.

What runs is named by edge.toml alone, never by a bundle or a document. A hook gets the version's folder as its last
argument and in DIGITRUCK_PATH, beside DIGITRUCK_BUNDLE and DIGITRUCK_VERSION; exit code 0 within its time means fit. It
runs again when the daemon died meanwhile. `zim`: the files must be whole ZIM files (zimlibrary.py); `kolibri`: a real
Kolibri imports the channels from the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from edge.config import EdgeConfig, KolibriSettings
from edge.zimlibrary import check_zims
from protocol.documents import Manifest
from protocol.errors import LocalError

log = structlog.get_logger("edge.fitness")

_SAID_BYTES: Final = 4_096
_SAID_S: Final = 2.0
_CHANNEL: Final = re.compile(r"^([0-9a-f]{32})\.sqlite3\Z")


class UnfitError(LocalError):
    """A version was activated and is not fit to stay; the text says what its check said."""


class Fitness:
    """Checks versions by their kind and by the hooks of this truck."""

    def __init__(self, config: EdgeConfig) -> None:
        self._hooks = config.hook
        self._kolibri = config.kolibri

    async def check(self, manifest: Manifest, path: Path) -> str:
        """Return a remark for the receipt, or raise `UnfitError`."""
        remark = ""
        if manifest.content == "zim":
            await asyncio.to_thread(check_zims, manifest, path)
        elif manifest.content == "kolibri":
            remark = await self._import_channels(manifest, path)
        for hook in self._hooks:
            if hook.bundle in (None, manifest.name) and hook.kind in (None, manifest.content):
                await run_hook((*hook.command, str(path)), manifest, path, timeout_s=hook.timeout_s)
        return remark

    async def _import_channels(self, manifest: Manifest, path: Path) -> str:
        kolibri = self._kolibri
        if kolibri is None:
            log.warning("kolibri.missing", bundle=manifest.name)
            return "installed; edge.toml names no [kolibri] to import it"
        databases = path / "content" / "databases"
        channels = [match[1] for each in manifest.files if (match := _channel(each.path)) is not None]
        if not channels or not databases.is_dir():
            raise UnfitError("a kolibri bundle has content/databases/CHANNEL.sqlite3 and content/storage")
        for channel in channels:
            for command in ("importchannel", "importcontent"):
                arguments = (*kolibri.command, "manage", command, "disk", channel, str(path))
                await run_hook(
                    arguments, manifest, path, timeout_s=kolibri.timeout_s, environment=_kolibri_environment(kolibri)
                )
        return ""


def _channel(path: str) -> re.Match[str] | None:
    folder, _, name = path.rpartition("/")
    return _CHANNEL.match(name) if folder == "content/databases" else None


def _kolibri_environment(kolibri: KolibriSettings) -> dict[str, str]:
    return {} if kolibri.home is None else {"KOLIBRI_HOME": kolibri.home}


async def run_hook(
    command: Sequence[str],
    manifest: Manifest,
    path: Path,
    *,
    timeout_s: float,
    environment: dict[str, str] | None = None,
) -> None:
    """Run a command about a version; raise `UnfitError` with what it said unless it ends well in time.

    It and whatever it started are killed when its time is over or the daemon stops.
    """
    about = {"DIGITRUCK_BUNDLE": manifest.name, "DIGITRUCK_VERSION": manifest.label, "DIGITRUCK_PATH": str(path)}
    # A pipe of our own: asyncio's would make the end of the program wait for whoever else holds it.
    reader, writer = os.pipe()
    said = _Tail()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=path,
            env={**os.environ, **about, **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writer,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        os.close(reader)
        raise UnfitError(f"{command[0]} cannot be run: {error.strerror}") from error
    finally:
        os.close(writer)
    stream = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb")
    )
    reading = asyncio.create_task(said.follow(stream))
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError:
        raise UnfitError(f"{Path(command[0]).name} took longer than {timeout_s:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        # All that it started is dead: the pipe ends, unless something left its session.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reading, _SAID_S)
        pipe.close()
    if code != 0:
        last = said.last_line()
        raise UnfitError(f"{Path(command[0]).name} ended with {code}" + (f": {last}" if last else ""))


class _Tail:
    """The last bytes of what a program says."""

    def __init__(self) -> None:
        self._data = b""

    async def follow(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(_SAID_BYTES):
            self._data = (self._data + data)[-_SAID_BYTES:]

    def last_line(self) -> str:
        """Return its last line, in plain characters, short enough for a receipt."""
        lines = [line.strip() for line in self._data.decode(errors="replace").splitlines() if line.strip()]
        return "".join(char for char in lines[-1] if char.isprintable())[:120] if lines else ""

"""What stands in for the daemon while its disk lets it not start: full, or read-only for now.

The classroom goes on with the content that is there; its start page and `/v1/status` answer, and records and events are
refused with 507 and the reason, so that scripts keep theirs. Every few seconds the disk is looked at again, and the
daemon takes over as soon as it can: nobody has to come for that. Nothing is written meanwhile, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Final, NoReturn

import structlog

from edge.classroom import make_classroom
from edge.classroom_server import ClassroomServer
from edge.clock import ClockState
from edge.config import EdgeConfig
from edge.daemon import Edge
from edge.identity import load_identity
from edge.installer import Installed, Installer
from edge.pages import ServedBundle
from edge.status import ClockStatus, DiskStatus, EdgeStatus
from protocol.errors import QueueFullError
from protocol.numbers import Precedence
from store.errors import StoreError
from store.notify import notify

log = structlog.get_logger("edge.standin")

# What opening the databases may take: both logs' shared memory, a few pages, the daemon's notes of its own life.
ROOM_BYTES: Final = 1 << 20
_LOOK_S: Final = 5.0
# Free bytes are no promise, and neither is their want: a start is tried now and then in any case.
_LOOKS_MAX: Final = 12
_MB: Final = 1_000_000


class StandIn:
    """The classroom's service without a store; it is source and sink of everything that the service asks for."""

    def __init__(self, config: EdgeConfig, data: Path, reason: str) -> None:
        """`reason` is what scripts are told."""
        self._config, self._data, self._reason = config, data, reason
        self._truck = load_identity(data / "identity")[1].truck
        self._installer = Installer(data / "content", bytes_max=config.content_mb_max * _MB)
        self._installed: tuple[Installed, ...] = self._installer.installed()
        app = make_classroom(config.classroom, recorder=self, status=self, content=self)
        self._server = ClassroomServer(app, config.classroom.listen)

    async def __aenter__(self) -> StandIn:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._server.address

    def status(self) -> EdgeStatus:
        """Return what can be said without a database."""
        content = sum(file.size for each in self._installed for file in each.manifest.files)
        return EdgeStatus(
            truck=self._truck,
            queues=(),
            links=(),
            versions=(),
            clock=ClockStatus(ClockState.UNSET),
            disk=DiskStatus(
                state_bytes=sum(each.stat().st_size for each in self._data.glob("state.db*") if each.is_file()),
                state_bytes_max=self._config.state_mb_max * _MB,
                content_bytes=content,
                content_bytes_max=self._config.content_mb_max * _MB,
                free_bytes=shutil.disk_usage(self._data).free,
            ),
        )

    def active(self, name: str) -> Path | None:
        """Return the folder of the bundle's active version, None if there is none."""
        return self._installer.active_folder(name)

    def bundles(self) -> list[ServedBundle]:
        """Return the bundles whose active version can be served."""
        return [
            ServedBundle(each.name, each.manifest.label, each.manifest.title, sum(f.size for f in each.manifest.files))
            for each in self._installed
            if each.active
        ]

    def by_digest(self, digest: bytes) -> Path | None:
        """Return None: other trucks ask again later."""
        return None

    async def record(self, values: tuple[tuple[str, float], ...], time_s: float | None) -> NoReturn:
        """Refuse a row."""
        raise QueueFullError(self._reason)

    async def event(
        self,
        name: str,
        precedence: Precedence,
        values: tuple[tuple[str, int | bool | str], ...],
        time_s: float | None,
    ) -> NoReturn:
        """Refuse an event."""
        raise QueueFullError(self._reason)


def ails(data: Path) -> str:
    """Return why nothing can be written to the disk below `data` now, "" when nothing is known against it."""
    try:
        about = os.statvfs(data)
    except OSError:
        return ""  # there is no such folder: that is another fault
    if about.f_flag & os.ST_RDONLY:
        return "the truck's disk is read-only: it is tried again until it takes writes (a restart checks the disk)"
    if about.f_bavail * about.f_frsize < ROOM_BYTES:
        return "the truck's disk is full: free some of it, this goes on by itself then"
    return ""


async def start_edge(config: EdgeConfig, data: Path, *, look_s: float = _LOOK_S) -> Edge:
    """Return the running truck once its disk lets it start, and serve the classroom until then.

    Raises what `Edge.start` raises when nothing ails the disk.
    """
    while True:
        edge = Edge(config, data)
        try:
            await edge.start()
        except (OSError, sqlite3.Error, StoreError) as error:
            if not (reason := ails(data)):
                raise
            log.error("edge.waits", reason=reason, error=str(error)[:200])
        else:
            return edge
        async with StandIn(config, data, reason) as standing:
            log.warning("edge.stands_in", classroom=standing.address)
            notify("READY=1")
            for _ in range(_LOOKS_MAX):
                notify("WATCHDOG=1")
                await asyncio.sleep(look_s)
                if not ails(data):
                    break

"""The desk for couriers: one import or export at a time, begun by a script on the truck, looked at while it runs.

`POST /v1/sticks` begins one and `GET /v1/sticks` says how it does (edge/classroom.py); `digitruck-edge usb` is both.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import structlog

from edge.scrubbing import scrub
from edge.stickexport import StickExport
from edge.stickimport import StickImport
from edge.sticksource import open_source
from protocol.errors import DigitruckError, LocalError
from protocol.numbers import Precedence
from protocol.wire import Name
from store.stickfolder import StickError

if TYPE_CHECKING:
    from edge.daemon import Edge

log = structlog.get_logger("edge.sticks")

_INSTALL_S: Final = 1_800.0
_POLL_S: Final = 0.1
_NAMED_MAX: Final = 20


class StickBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/sticks: what to do with which folder or address; `content` are bundles for another truck."""

    action: Literal["import", "export", "scrub"]
    path: Annotated[str, msgspec.Meta(max_length=1_024)] = ""
    content: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()


@dataclass(frozen=True, slots=True)
class StickState:
    """How the import or export that was begun last does; `error` is empty unless it failed, `notes` are its result."""

    action: str = ""
    path: str = ""
    running: bool = False
    doing: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""


class Sticks:
    """Runs imports and exports of one truck."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._task: asyncio.Task[None] | None = None
        self._state = StickState()

    def state(self) -> StickState:
        """Return how it goes."""
        return self._state

    def begin(self, body: StickBody) -> StickState:
        """Begin; raise `LocalError` while another one runs."""
        if self._task is not None and not self._task.done():
            raise LocalError(f"the {self._state.action} of {self._state.path} is not finished: wait for it")
        self._state = StickState(body.action, body.path, running=True, doing="starting")
        self._task = asyncio.create_task(self._run(body), name=f"stick-{body.action}")
        return self._state

    async def close(self) -> None:
        """Stop what runs; what came is kept, and it goes on when it is begun again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, body: StickBody) -> None:
        notes: tuple[str, ...] = ()
        error = ""
        try:
            work = {"import": self._import, "export": self._export, "scrub": self._scrub}[body.action]
            notes = await work(body)
        except (DigitruckError, OSError) as failure:
            error = str(failure)
            log.warning(f"stick.{body.action}_failed", path=body.path, reason=error)
        except asyncio.CancelledError:
            error = "the daemon stopped: begin it again"
            raise
        except Exception as failure:  # a stick must never end the daemon
            error = f"{type(failure).__name__}: {failure}"
            log.exception("stick.failed", path=body.path)
        finally:
            self._state = StickState(body.action, body.path, notes=notes, error=error)

    async def _import(self, body: StickBody) -> tuple[str, ...]:
        source = await asyncio.to_thread(open_source, body.path)
        work = StickImport(self._edge, source, self._told)
        try:
            brought = await work.run()
        except StickError as failure:
            if work.brought.files:
                raise StickError(f"{failure} ({work.brought.files} files came and are kept)") from failure
            raise
        log.info("stick.imported", path=body.path, files=brought.files, bytes=brought.bytes, missing=brought.missing)
        return (*brought.notes, *await self._installed(frozenset(brought.bundles)))

    async def _installed(self, bundles: frozenset[str]) -> tuple[str, ...]:
        """Wait until what came is active, or the truck has done what it can about it."""
        if not bundles:
            return ()
        self._told("installing", 0, 0)
        edge = self._edge
        end = edge.clock.monotonic() + _INSTALL_S
        while edge.clock.monotonic() < end:
            await asyncio.sleep(_POLL_S)
            waiting = [name for name in sorted(bundles) if not self._is_active(name)]
            if not waiting:
                break
            if edge.bundles.is_idle:
                return tuple(f"{name}: not active yet; digitruck-edge status says why" for name in waiting)
        return tuple(f"{name} is active" for name in sorted(bundles) if self._is_active(name))

    def _is_active(self, name: str) -> bool:
        wanted = next((each.manifest for each in self._edge.wanted.rollouts if each.bundle == name), None)
        folder = self._edge.installer.active_folder(name)
        return folder is not None and wanted is not None and folder.name == wanted.hex()

    async def _export(self, body: StickBody) -> tuple[str, ...]:
        given = await StickExport(self._edge, Path(body.path), self._told).run(body.content)
        log.info("stick.exported", path=body.path, parcels=given.parcels, bytes=given.bytes)
        notes = [
            f"{given.parcels} parcels are on it ({given.bytes} bytes); they are kept here until they are confirmed"
        ]
        return (*notes, *(f"{name} is on it" for name in given.content))

    async def _scrub(self, _: StickBody) -> tuple[str, ...]:
        edge = self._edge
        async with edge.bundles.paused():
            found = await asyncio.to_thread(
                scrub, edge.installer, lambda done, total: self._told("checking", done, total)
            )
        await edge.repairs.want(found.wanted)
        notes = [f"{found.files} files, {found.read_bytes / 1e6:.1f} MB: {len(found.damaged)} are damaged"]
        if found.damaged:
            values = (("files", len(found.damaged)), ("mended", found.mended), ("asked", len(found.wanted)))
            await edge.recorder.event("content.rotted", Precedence.PRIORITY, values)
            notes += [f"damaged: {path}" for path in found.damaged[:_NAMED_MAX]]
            notes.append(f"{found.mended} mended from copies here, {len(found.wanted)} are asked for over a link")
        log.info("content.scrubbed", files=found.files, damaged=len(found.damaged), mended=found.mended)
        return tuple(notes)

    def _told(self, doing: str, done: int, total: int) -> None:
        # Also from threads: it is one assignment.
        state = self._state
        self._state = StickState(state.action, state.path, True, doing, done, total)

"""What product code asks of the machine it runs on, answered by the simulation: time, entropy, sockets, disks, threads.

Each answer depends on who asks: the running task belongs to a life of a truck or of the gateway (`owner_of_task`).
Nothing of the product is replaced but what touches the machine; a few intervals of polling are made longer, since a
simulated month has 43,200 minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import aiosqlite.core
import structlog

import edge.bundles
import edge.daemon
import edge.downlink
import edge.fetch
import edge.uplink
import gateway.budgetwatch
import gateway.daemon
import gateway.ledger
import gateway.mail
import gateway.rollouts
import gateway.rollups
import gateway.truckwatch
import gateway.webhooks
import store.coapcontext
import store.coapmeter
import store.database
import store.fleet.changes
import store.fleet.sqlite
import store.identity
import store.links
import tests.sim.truck
from store.writer import GROUP_MAX, Writer, _Job
from tests.sim.disk import Disk, VirtualConnection
from tests.sim.loop import VirtualLoop, owner_of_task
from tests.sim.network import VirtualSocket


class Machine(Protocol):
    """One life of a truck or of the gateway, as the code that runs in it sees it."""

    name: str
    boot: int
    disk: Disk | None

    def monotonic(self) -> float:
        """Return seconds since the machine was switched on."""

    def open_socket(self, interface: str | None) -> VirtualSocket:
        """Open the socket that goes out of an interface."""


class InlineWriter(Writer):
    """The product's writer without its thread: the same groups, committed in a turn of the loop."""

    def __init__(self, database: Any) -> None:
        super().__init__(database)
        self._waiting: list[_Job] = []

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run a function in the next group."""
        if self._loop is None or self._closing:
            return await super().run(function)
        future = self._loop.create_future()
        self._waiting.append(_Job(function, future))
        if len(self._waiting) == 1:
            self._loop.call_soon(self._work_once)
        return await future

    async def close(self) -> None:
        """Do what is queued, then end."""
        self._closing = True
        self._work_once()

    def _work_once(self) -> None:
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), GROUP_MAX):
            group = waiting[at : at + GROUP_MAX]
            self._commit(group)
            self._hand_out(group)


class _NoDevices:
    """The interfaces of the machine that simulates are none of the simulation's."""

    def __init__(self, *_: Any) -> None:
        pass

    async def run(self) -> None:
        """Watch nothing."""


class _NoClassroom:
    """The classroom's web server is not part of the simulation."""

    address = ""

    def __init__(self, *_: Any) -> None:
        pass

    async def start(self) -> None:
        """Serve nobody."""

    async def stop(self) -> None:
        """Have served nobody."""


class _NoCollector:
    """Nothing of this process may be frozen: it runs many gateways."""

    @staticmethod
    def collect() -> None:
        """Leave it."""

    freeze = set_threshold = staticmethod(lambda *_: None)


@contextlib.contextmanager
def machines(loop: VirtualLoop, seed: int, disks: list[Disk], *, coarse: bool = False) -> Iterator[None]:
    """Have the product's code run on the simulated machines while the block lasts; `coarse`: it polls even less."""
    entropy = random.Random(f"entropy {seed}")
    real_random = random.getstate()
    random.seed(f"global {seed}")

    def me() -> Any:
        return owner_of_task.get()

    def monotonic(*_: Any) -> float:
        owner = me()
        return loop.now_s if owner is None else float(owner.monotonic())

    def urandom(size: int) -> bytes:
        return entropy.randbytes(size)

    def open_socket(_bind: Any, interface: str | None, _buffer: int) -> VirtualSocket:
        opened: VirtualSocket = me().open_socket(interface)
        return opened

    def is_unchanged(file: Path, inode: int, changed_ns: int) -> bool:
        about = file.stat()
        owner = me()
        if owner is not None and owner.disk is not None and inode in owner.disk.kept_inodes.get(about.st_ino, ()):
            return True  # a power cut made a new folder of the old one: it is the same file to the truck
        return (about.st_ino, about.st_ctime_ns) == (inode, changed_ns)

    with contextlib.ExitStack() as undo:

        def put(place: Any, name: str, value: Any) -> None:
            before = getattr(place, name)
            undo.callback(setattr, place, name, before)
            setattr(place, name, value)

        def put_default(function: Any, name: str, value: Any) -> None:
            before = function.__kwdefaults__[name]
            undo.callback(function.__kwdefaults__.__setitem__, name, before)
            function.__kwdefaults__[name] = value

        undo.callback(random.setstate, real_random)
        put(time, "monotonic", monotonic)
        put(time, "clock_gettime", monotonic)
        put(time, "time", monotonic)
        put(os, "urandom", urandom)
        put_default(store.coapmeter.Meter.__init__, "monotonic", monotonic)
        put_default(store.database.open_database, "entropy", urandom)
        put_default(store.links.open_links, "entropy", urandom)
        put(store.coapcontext, "_open_socket", open_socket)
        put(store.identity, "_is_unchanged", is_unchanged)
        for module in [each for name, each in sorted(sys.modules.items()) if name.startswith("edge.")]:
            for name, value in (("kernel_boot_id", lambda: me().boot), ("board_name", lambda: me().board)):
                if hasattr(module, name):
                    put(module, name, value)
        put(edge.daemon, "Writer", InlineWriter)
        put(edge.daemon, "ClassroomServer", _NoClassroom)
        put(edge.daemon, "LinkWatch", _NoDevices)
        put(edge.daemon, "make_classroom", lambda *_, **__: None)
        put(gateway.daemon, "gc", _NoCollector)
        put(gateway.daemon, "migrate", _nothing)
        for module, name, value in _LONGER + (_LONGEST if coarse else ()):
            put(module, name, value)
        put(aiosqlite.core, "SimpleQueue", _AtOnce)
        put(aiosqlite.core, "Thread", _NoThread)
        _put_files(put, disks)
        with structlog_silenced():
            yield


@contextlib.contextmanager
def structlog_silenced() -> Iterator[None]:
    """Have the product log nothing."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        structlog.configure(**before)


# Polling that a simulated month cannot afford; all of it only finds later what an event has not told.
_LONGER = (
    (edge.uplink, "_SWEEP_S", 1_800.0),
    (edge.fetch, "_IDLE_WAIT_S", 900.0),
    (gateway.budgetwatch, "_PAUSE_S", 21_600.0),
    (gateway.daemon, "_WATCHDOG_S", 43_200.0),
    (gateway.ledger, "_FLUSH_S", 3_600.0),
    (gateway.rollouts, "_LOOK_AGAIN_S", 3_600.0),
    (gateway.rollups, "_PAUSE_S", 21_600.0),
    (gateway.mail, "_PAUSE_S", 21_600.0),
    (gateway.truckwatch, "_PAUSE_S", 21_600.0),
    (gateway.webhooks, "_SWEEP_S", 21_600.0),
    (store.fleet.changes, "_LOOK_AGAIN_S", 21_600.0),
)


# What a simulated year cannot afford.
_LONGEST = (
    (tests.sim.truck, "TICK_S", 21_600.0),
    (tests.sim.truck, "FLUSH_S", 21_600.0),
    (edge.uplink, "_SWEEP_S", 21_600.0),
    (edge.daemon, "_HOUSEKEEPING_S", 21_600.0),
    (gateway.daemon, "_WATCHDOG_S", 86_400.0),
    (gateway.ledger, "_FLUSH_S", 21_600.0),
    (gateway.rollouts, "_LOOK_AGAIN_S", 43_200.0),
)


async def _nothing(*_: Any) -> None:
    """Have nothing to migrate: the database is a copy of one that was."""


class _AtOnce:
    """In place of the queue to aiosqlite's thread: what is put in is done, and its future holds the result."""

    def put_nowait(self, job: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        """Do it."""
        future, function = job
        try:
            result = function()
        except Exception as error:
            if future is not None:
                future.set_exception(error)
        else:
            if future is not None:
                future.set_result(result)


class _NoThread:
    """In place of that thread."""

    daemon = True

    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        """Have nothing to do."""


def _put_files(put: Callable[[Any, str, Any], None], disks: list[Disk]) -> None:
    """Have the operations on files that matter tell the disk that they belong to."""

    def disk_of(path: Any) -> Disk | None:
        owner = owner_of_task.get()
        disk: Disk | None = owner.disk if owner is not None else None
        return disk if disk is not None and disk.holds(os.fspath(path)) else None

    def of_descriptor(descriptor: int) -> Disk | None:
        owner = owner_of_task.get()
        if owner is None or owner.disk is None:
            return None
        return disk_of(os.readlink(f"/proc/self/fd/{descriptor}"))

    real = {name: getattr(os, name) for name in ("fsync", "fdatasync", "open", "pwrite", "posix_fallocate")}

    def sync(descriptor: int) -> None:
        disk = of_descriptor(descriptor)
        if disk is not None:
            disk.step()
            disk.synced(descriptor)

    def open_file(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        disk = disk_of(path) if flags & os.O_CREAT and isinstance(path, str | os.PathLike) else None
        if disk is not None:
            disk.refuse_when_full()
            disk.step()
        opened: int = real["open"](path, flags, mode, dir_fd=dir_fd)
        if disk is not None:
            disk.renamed(os.fspath(path))
        return opened

    def write_at(descriptor: int, data: Any, offset: int) -> int:
        disk = of_descriptor(descriptor)
        if disk is not None:
            disk.refuse_when_full()
            disk.step()
        written: int = real["pwrite"](descriptor, data, offset)
        return written

    put(os, "fsync", sync)
    put(os, "fdatasync", sync)
    put(os, "open", open_file)
    put(os, "pwrite", write_at)

    def naming(name: str) -> Callable[..., Any]:
        do = getattr(os, name)

        def done(*arguments: Any, **named: Any) -> Any:
            paths = [each for each in arguments[:2] if isinstance(each, str | os.PathLike)]
            disk = disk_of(paths[-1]) if paths and not named.get("dir_fd") else None
            if disk is None:
                return do(*arguments, **named)
            disk.step()
            found = do(*arguments, **named)
            for each in paths if name in ("rename", "replace") else paths[-1:]:
                disk.renamed(os.fspath(each))
            return found

        return done

    for name in ("rename", "replace", "unlink", "link", "symlink", "mkdir"):
        put(os, name, naming(name))

    connect = sqlite3.connect

    def connect_virtual(database: Any, *arguments: Any, **named: Any) -> Any:
        disk = disk_of(database) if not named.get("uri") else None
        if disk is None:
            return connect(database, *arguments, **named)
        made = connect(database, *arguments, factory=VirtualConnection, **named)
        made.disk, made.path = disk, os.fspath(database)
        disk.connected(made)
        return made

    put(store.database.sqlite3, "connect", connect_virtual)

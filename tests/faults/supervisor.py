"""A service manager in one loop: READY, WATCHDOG and restarts as systemd does them (sd_notify(3), systemd.service(5)).

A daemon that does not ping within its time gets SIGABRT, then SIGKILL, and is started again, as is one that ends by
itself: `Restart=always` with no limit of starts.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.powercut.nursery import Life, Nursery

_START_S: Final = 90.0  # TimeoutStartSec
_ABORT_S: Final = 1.0  # TimeoutAbortSec


class Supervisor:
    """Looks after one daemon, `module:function(tell, environment, *arguments)`."""

    def __init__(self, nursery: Nursery, folder: Path, function: str, *arguments: Any, watchdog_s: float) -> None:
        self._nursery = nursery
        self._function, self._arguments = function, arguments
        self._watchdog_s = watchdog_s
        self._path = str(folder / "notify")
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(self._path)
        self._channel.settimeout(0.05)
        self.life: Life | None = None
        self._deadline = 0.0
        self.starts = self.readies = self.pings = self.aborted = 0
        self.healed_s: float | None = None
        self._failed_at: float | None = None
        self.told: list[list[Any]] = []

    def run(self, until: Callable[[], bool], *, within_s: float) -> None:
        """Look after the daemon until something is so; raise `TimeoutError`."""
        end = time.monotonic() + within_s
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.starts} starts, {self.pings} pings, told {self.told[-3:]}")
            self._turn()

    def _turn(self) -> None:
        if self.life is None or self.life.ended:
            self._start()
        assert self.life is not None
        self.told += self.life.read()
        try:
            for state in self._channel.recv(4096).decode().split("\n"):
                self._heard(state)
        except TimeoutError:
            pass
        if time.monotonic() > self._deadline:
            self._abort()

    def _heard(self, state: str) -> None:
        now = time.monotonic()
        if state == "READY=1":
            self.readies += 1
            self._deadline = now + self._watchdog_s
            if self._failed_at is not None:
                self.healed_s, self._failed_at = now - self._failed_at, None
        elif state == "WATCHDOG=1":
            self.pings += 1
            self._deadline = now + self._watchdog_s

    def _abort(self) -> None:
        assert self.life is not None
        self.aborted += 1
        self._failed_at = time.monotonic()
        self.life.signal(signal.SIGABRT)
        try:
            self.life.wait(_ABORT_S)
        except TimeoutError:
            self.life.signal(signal.SIGKILL)
            self.life.wait()

    def _start(self) -> None:
        if self.life is not None:
            self.told += self.life.kill()
        # What a dead daemon had still to say is not said for its successor.
        self._channel.setblocking(False)
        try:
            while True:
                self._channel.recv(4096)
        except BlockingIOError:
            self._channel.settimeout(0.05)
        environment = {"NOTIFY_SOCKET": self._path, "WATCHDOG_USEC": str(int(self._watchdog_s * 1e6))}
        self.starts += 1
        self._deadline = time.monotonic() + _START_S
        self.life = self._nursery.start(self._function, environment, *self._arguments)

    def close(self) -> None:
        """Kill the daemon."""
        if self.life is not None:
            self.life.kill()
        self._channel.close()
        os.unlink(self._path)

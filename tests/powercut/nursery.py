"""Processes that start in milliseconds: forked from one that has everything imported and no thread.

A cut costs a process; a fresh interpreter takes seconds to import a daemon, a fork of this one none. Each life runs
one function by its module and name and tells what it has done as JSON lines; a line that was read before a cut is an
acknowledgement. The children die with the nursery, and the nursery with whoever made it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES_MAX = 1 << 16
_EXIT_S = 20.0
_READY_S = 120.0


class Tell:
    """How a life tells what it has done."""

    def __init__(self, file: int) -> None:
        # Not written to but sent: who makes every write fail wants to hear of it all the same.
        self._channel = socket.socket(fileno=file)

    def __call__(self, *words: Any) -> None:
        """Tell one thing that is true from now on, whatever happens to the power."""
        self._channel.sendall(json.dumps(words).encode() + b"\n")


class Life:
    """One running process."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pid_file = os.pidfd_open(pid)
        self._pipe = pipe
        os.set_blocking(pipe, False)
        self._rest = b""

    def read(self) -> list[list[Any]]:
        """Return what it has told since the last time; never waits."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while part := os.read(self._pipe, 1 << 16):
                self._rest += part
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]

    def wait_for_words(self, timeout_s: float) -> bool:
        """Wait until it has told something, or has ended; return whether there is something to read."""
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll(timeout_s * 1000))

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._ends_within(0)

    def _ends_within(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._pid_file, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pid_file, number)

    def wait(self, timeout_s: float = _EXIT_S) -> None:
        """Wait for its end; raise `TimeoutError`."""
        if not self._ends_within(timeout_s):
            raise TimeoutError(f"process {self.pid} has not ended within {timeout_s:.0f} s")

    def kill(self) -> list[list[Any]]:
        """Kill it and wait for its end; return what it still told."""
        self.signal(signal.SIGKILL)
        self.wait()
        last = self.read()
        os.close(self._pipe)
        os.close(self._pid_file)
        return last


class Nursery:
    """Makes lives. Start it before the first thread of this process, with the modules to import."""

    def __init__(self, modules: Sequence[str], *, quiet: bool = True) -> None:
        self._near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._near.close()
            _end_with(parent)
            try:
                _serve(far, modules, quiet=quiet)
            except Exception:
                traceback.print_exc(file=sys.stderr)
            finally:
                os._exit(0)
        far.close()
        self._near.settimeout(_READY_S)
        assert self._near.recv(_MESSAGE_BYTES_MAX) == b"ready", "the nursery did not start"

    def start(self, where: str, *arguments: Any) -> Life:
        """Run `module:function(tell, *arguments)` in a process of its own; the arguments go as JSON."""
        near, far = socket.socketpair()
        with far:
            socket.send_fds(self._near, [json.dumps([where, arguments]).encode()], [far.fileno()])
        return Life(int(self._near.recv(_MESSAGE_BYTES_MAX)), near.detach())

    def close(self) -> None:
        """End the nursery and all its lives."""
        self._near.close()


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def _serve(channel: socket.socket, modules: Sequence[str], *, quiet: bool) -> None:
    # Nobody waits for the children: the kernel forgets them, and their end is seen through their pid's file.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in modules:
        importlib.import_module(module)
    channel.send(b"ready")
    me = os.getpid()
    while True:
        message, files, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES_MAX, 1)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            channel.close()
            _end_with(me)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _live(message, files[0], quiet=quiet)
        os.close(files[0])
        channel.send(str(pid).encode())


def _live(message: bytes, file: int, *, quiet: bool) -> None:
    """Run what the message names, then end without any clean-up of the interpreter."""
    faulthandler.disable()
    if quiet:
        # What a daemon says while its disk dies under it would bury what the harness says.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    where, arguments = json.loads(message)
    module, _, name = where.partition(":")
    tell = Tell(file)
    try:
        getattr(importlib.import_module(module), name)(tell, *arguments)
    except BaseException as error:
        tell("raised", type(error).__name__, str(error)[:500])
        traceback.print_exc(file=sys.stderr)
        os._exit(1)
    os._exit(0)

"""The n-th system call of a kind fails, or the process dies in it: strace attached to a process that waits for it.

A scene is a function that prepares in peace, waits at `stage`, and then does the one thing that is looked at. The count
is kept for each thread, as strace keeps it; a run in which nothing was hit says that n is beyond the last call.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.powercut.nursery import Nursery, Tell

CALLS = {
    "write": "write,pwrite64,pwritev,writev,ftruncate,fallocate",
    "fsync": "fsync,fdatasync",
    "rename": "rename,renameat,renameat2,link,linkat,symlink,symlinkat",
    "open": "open,openat,mkdir,mkdirat",
    "unlink": "unlink,unlinkat,rmdir",
}
FAULTS = {"EIO": "error=EIO", "ENOSPC": "error=ENOSPC", "kill": "signal=SIGKILL"}
_READY_S = 60.0
_GO = signal.SIGUSR1


def why_not() -> str | None:
    """Return why calls cannot be made to fail here, None if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    # -D leaves a process of its own that traces: what matters is whether one may attach at all.
    probe = subprocess.run(
        ["strace", "-qq", "-o", os.devnull, "-e", "inject=uname:error=EIO", "true"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return None if probe.returncode == 0 else f"strace may not trace here: {probe.stderr.strip()}"


def stage(tell: Tell) -> None:
    """Say that the scene is set, and wait until it is watched."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {_GO})
    tell("ready")
    signal.sigwait({_GO})


@dataclass(frozen=True, slots=True)
class Fault:
    """Which call, how it fails, and the how-manieth."""

    call: str
    fault: str
    n: int

    def __str__(self) -> str:
        return f"{self.call} {self.n} {self.fault}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scene told, whether the fault hit anything, and its end: `done`, `raised`, `killed` or `hung`."""

    told: list[list[Any]]
    was_hit: bool
    end: str


def play(nursery: Nursery, where: str, arguments: list[Any], fault: Fault | None, *, within_s: float) -> Outcome:
    """Run a scene under a fault (None: in peace) and return what came of it; a scene that hangs is killed."""
    life = nursery.start(where, *arguments)
    told: list[list[Any]] = []
    try:
        end = time.monotonic() + _READY_S
        while not any(words == ["ready"] for words in told):
            life.wait_for_words(1.0)
            told += life.read()
            if time.monotonic() > end or life.ended:
                raise AssertionError(f"{where} was never ready: {told}")
        hit = False
        if fault is None:
            life.signal(_GO)
            hung = not _ends(life, within_s)
        else:
            with tempfile.NamedTemporaryFile(prefix="faults-") as log:
                tracer = _attach(life.pid, fault, log.name)
                life.signal(_GO)
                hung = not _ends(life, within_s)
                if hung:
                    life.signal(signal.SIGKILL)
                tracer.wait(20)
                text = Path(log.name).read_text("utf-8", "replace")
                hit = "INJECTED" in text or (fault.fault == "kill" and "+++ killed by SIGKILL" in text and not hung)
    finally:
        told += life.kill()
    raised = any(words[0] == "raised" for words in told)
    done = any(words[0] == "done" for words in told)
    return Outcome(told, hit, "hung" if hung else "raised" if raised else "done" if done else "killed")


def _ends(life: Any, within_s: float) -> bool:
    try:
        life.wait(within_s)
    except TimeoutError:
        return False
    return True


def _attach(pid: int, fault: Fault, log: str) -> subprocess.Popen[bytes]:
    calls = CALLS[fault.call]
    injected = f"inject={calls}:{FAULTS[fault.fault]}:when={fault.n}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", log, "-e", f"trace={calls}", "-e", injected, "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 20
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0\n" in status.read_text():
        if tracer.poll() is not None or time.monotonic() > end:
            raise AssertionError("strace did not attach")
        time.sleep(0.001)
    return tracer

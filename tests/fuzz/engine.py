"""The bars that hostile input has to keep under: no uncaught exception, no hang, bounded memory, quiet logs.

A target is run for a number of inputs or for a time. Each input has a deadline, of processor time so that a busy
machine changes nothing; a fault is kept with its input, so that it can be replayed and become a test.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import psutil
import structlog

from protocol.errors import PeerError
from tests.fuzz.mutation import mutate

DEADLINE_S = 2.0
# An input that waits for something, instead of working, is given up after so many deadlines of real time.
_PATIENCE = 30
MEMORY_BYTES_MAX = 64 << 20
LOG_BYTES_MAX = 1_000_000
FAULTS_KEPT = 5
_WARM_UP = 200


class HangError(BaseException):
    """An input took longer than its deadline; not an Exception, so that no parser can swallow it."""


class Running(Protocol):
    """A target that is set up: takes inputs, and says afterwards what went wrong without raising."""

    def feed(self, data: bytes) -> None:
        """Take one input; a `PeerError` is a polite refusal, anything else raised is a fault."""

    def settle(self) -> list[str]:
        """Return what went wrong behind the scenes (uncaught in a loop, counted faults)."""


@dataclass(frozen=True)
class Target:
    """A parser or a server under fuzz. `seeds` are valid inputs; `generate` makes some without a seed."""

    name: str
    open: Callable[[], AbstractContextManager[tuple[Running, Sequence[bytes]]]]
    generate: Callable[[random.Random], bytes] | None = None


@dataclass
class Findings:
    """What a run found."""

    target: str
    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    memory_bytes: int = 0
    log_bytes: int = 0
    faults: list[str] = field(default_factory=list)
    fault_count: int = 0

    def fault(self, what: str, data: bytes) -> None:
        """Keep a fault with its input."""
        self.fault_count += 1
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(f"{what}\n  input: {data.hex()}")

    def broken_bars(self) -> list[str]:
        """Return each bar that was not kept under."""
        bars = list(self.faults)
        if self.memory_bytes > MEMORY_BYTES_MAX:
            bars.append(f"{self.target}: memory grew by {self.memory_bytes >> 20} MiB")
        if self.log_bytes > LOG_BYTES_MAX:
            bars.append(f"{self.target}: {self.log_bytes} bytes of logs")
        return bars


def inputs(target: Target, seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield inputs for ever, the same for the same seed (and the same seeds)."""
    dice = random.Random(f"{target.name}/{seed}")
    while True:
        if target.generate is not None and dice.random() < 0.4:
            yield target.generate(dice)
        else:
            yield mutate(dice, seeds)


def run(target: Target, *, seed: int, count: int | None = None, seconds: float | None = None) -> Findings:
    """Feed a target `count` inputs, or as many as `seconds` hold, and return what was found."""
    findings = Findings(target.name)
    process = psutil.Process()
    with _logs() as log_bytes, target.open() as (running, seeds):
        before = process.memory_info().rss
        until = None if seconds is None else time.monotonic() + seconds
        for data in inputs(target, seeds, seed):
            if findings.inputs == count or (until is not None and time.monotonic() >= until):
                break
            _feed(running, data, findings)
            if findings.inputs == _WARM_UP:
                # Caches and tables of the first inputs are not growth.
                before = process.memory_info().rss
        for trouble in running.settle():
            findings.fault(trouble, b"")
        findings.memory_bytes = max(0, process.memory_info().rss - before)
        findings.log_bytes = log_bytes()
    return findings


def replay(target: Target, data: bytes) -> Findings:
    """Feed one input."""
    findings = Findings(target.name)
    with _logs(), target.open() as (running, _):
        _feed(running, data, findings)
        for trouble in running.settle():
            findings.fault(trouble, data)
    return findings


def _feed(running: Running, data: bytes, findings: Findings) -> None:
    started = time.perf_counter()
    try:
        with deadline(DEADLINE_S):
            running.feed(data)
    except PeerError:
        findings.refused += 1
    except HangError:
        findings.fault(f"{findings.target}: took longer than {DEADLINE_S} s", data)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = "".join(traceback.format_exception(error)[-3:])
        findings.fault(f"{findings.target}: {type(error).__name__}: {error}\n{where}", data)
    findings.inputs += 1
    findings.slowest_s = max(findings.slowest_s, time.perf_counter() - started)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `HangError` in the main thread unless the block ends within so much processor time."""

    def expire(_signal: int, _frame: object) -> None:
        raise HangError

    timers = (
        (signal.SIGPROF, signal.ITIMER_PROF, seconds),
        (signal.SIGALRM, signal.ITIMER_REAL, _PATIENCE * seconds),
    )
    before = [(number, signal.signal(number, expire)) for number, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def _logs() -> Iterator[Callable[[], int]]:
    """Send structlog, logging and whatever writes to stderr into a file, and count its bytes."""
    with tempfile.TemporaryFile("w+") as log:
        was = structlog.get_config()
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),  # as both daemons have it
            logger_factory=structlog.PrintLoggerFactory(file=log),
            cache_logger_on_first_use=False,
        )
        root = logging.getLogger()
        handler = logging.StreamHandler(log)
        root.addHandler(handler)
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield lambda: (log.flush(), os.fstat(log.fileno()).st_size)[1]
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            root.removeHandler(handler)
            structlog.configure(**was)

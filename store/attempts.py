"""Attempts at what may be poison: each is counted before the work begins, and forgotten when it has come to an end.

A parcel, a document or a pack that loops or kills its process would do so at every try, for ever. Whoever works on one
says so here first; what a process leaves behind as begun was what it died of, or by bad luck looked at just then. After
`ATTEMPTS_MAX` such ends in a row it is `used_up`: it is put aside and reported, and never blocks what comes behind it.

The counts lie in a small mapped file, so that they outlive the process and cost no system call. They are not synced: a
power cut is nobody's poison (what is noted without an end is). A file that cannot be made leaves the counts in memory
alone. What takes longer than it may is `overdue`: whoever pings a watchdog stops then, and its process is killed and
started again.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from protocol.errors import PeerError
from protocol.numbers import DIGEST_BYTES, PARCEL_ATTEMPTS_MAX

ATTEMPTS_MAX: Final = PARCEL_ATTEMPTS_MAX
WITHIN_S: Final = 60.0
SLOTS: Final = 1_024
_SLOT: Final = struct.Struct(f">{DIGEST_BYTES}sII")  # what it is, how often it was begun, a checksum of both


class PoisonError(PeerError):
    """This was begun again and again and never came to an end: it is not touched any more."""


class Attempts:
    """What was begun and did not end, by the SHA-256 of its bytes; for any thread of one process."""

    def __init__(self, path: Path | None = None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take over what the last process left in the file `path`; None keeps the counts in memory."""
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._until: dict[bytes, float] = {}  # of what is under way now
        self._begun: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # -> slot, count
        self._free = list(range(SLOTS))
        self._map: mmap.mmap | None = None
        if path is not None:
            with suppress(OSError):
                self._open(path)

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Whole before it is mapped: a full disk says so here, not by a signal later.
            os.posix_fallocate(file, 0, SLOTS * _SLOT.size)
            self._map = mmap.mmap(file, SLOTS * _SLOT.size)
        finally:
            os.close(file)
        for slot in range(SLOTS):
            digest, count, check = _SLOT.unpack_from(self._map, slot * _SLOT.size)
            if count and check == _check(digest, count) and digest not in self._begun:
                self._begun[digest] = slot, count
        taken = {slot for slot, _ in self._begun.values()}
        self._free = [slot for slot in range(SLOTS) if slot not in taken]

    def count(self, digest: bytes) -> int:
        """Return how often it was begun and did not end."""
        return self._begun.get(digest, (0, 0))[1]

    def used_up(self, digest: bytes) -> bool:
        """Return whether it must not be touched again."""
        return self.count(digest) >= ATTEMPTS_MAX

    def note(self, digest: bytes) -> None:
        """Count something that has no end of its own, such as a process; `forget` takes it away."""
        with self._lock:
            slot = self._begun[digest][0] if digest in self._begun else self._take_slot()
            self._begun[digest] = slot, self.count(digest) + 1
            self._write(slot, digest, self.count(digest))
            if self._map is not None:
                with suppress(OSError):
                    self._map.flush()  # seldom, and worth more than what is under way

    def forget(self, digest: bytes) -> None:
        """Forget it, whether it came to an end or not."""
        with self._lock:
            self._end(digest)

    def overdue(self) -> bool:
        """Return whether something takes longer than it may."""
        now = self._monotonic()
        with self._lock:
            return any(until < now for until in self._until.values())

    @contextmanager
    def of(self, digest: bytes, *, within_s: float = WITHIN_S) -> Iterator[None]:
        """Make one attempt, counted before it is made; raise `PoisonError` when there were too many.

        It ends with the block, whatever that raises, unless the process ends first; `within_s` says how long it may
        take before it is overdue.
        """
        with self._lock:
            self._begin(digest, within_s)
        try:
            yield
        finally:
            with self._lock:
                self._end(digest)

    def _begin(self, digest: bytes, within_s: float) -> None:
        count = self.count(digest)
        if count >= ATTEMPTS_MAX:
            raise PoisonError(f"put aside: it was begun {count} times and never came to an end")
        slot = self._begun[digest][0] if digest in self._begun else self._take_slot()
        self._begun[digest] = slot, count + 1
        self._until[digest] = self._monotonic() + within_s
        self._write(slot, digest, count + 1)

    def _end(self, digest: bytes) -> None:
        self._until.pop(digest, None)
        found = self._begun.pop(digest, None)
        if found is not None:
            self._write(found[0], bytes(DIGEST_BYTES), 0)
            self._free.append(found[0])

    def _take_slot(self) -> int:
        if not self._free:
            # Thousands that died at once: the oldest is the least likely to be under way.
            _, (slot, _) = self._begun.popitem(last=False)
            return slot
        return self._free.pop()

    def _write(self, slot: int, digest: bytes, count: int) -> None:
        if self._map is not None:
            _SLOT.pack_into(self._map, slot * _SLOT.size, digest, count, _check(digest, count))


def _check(digest: bytes, count: int) -> int:
    return crc32(digest + count.to_bytes(4, "big"))

"""Content that failed for want of room: the disk is looked at now and then, and what fits by now is tried at once."""

from __future__ import annotations

import errno
from collections.abc import Callable, MutableMapping, Sequence
from typing import Final

from edge.installer import DiskFullError
from edge.jobs import Job
from protocol.documents import Manifest

LOOK_S: Final = 30.0
_Key = tuple[str, int, bytes | None]


class Roomless:
    """Remembers which jobs found no room, and when to look again."""

    def __init__(self, check_room: Callable[[Manifest], None], monotonic: Callable[[], float]) -> None:
        """`check_room` raises `DiskFullError` or `OSError`; it blocks."""
        self._check_room = check_room
        self._monotonic = monotonic
        self._look_at: dict[_Key, float] = {}

    def note(self, job: Job, failure: Exception) -> None:
        """Take a failure; only a full disk or share counts."""
        number = failure.errno if isinstance(failure, OSError) else None
        if isinstance(failure, DiskFullError) or number in (errno.ENOSPC, errno.EDQUOT):
            # Not at once: a disk without inodes has bytes left, and would be tried over and over.
            self._look_at[job.key] = self._monotonic() + LOOK_S

    @property
    def look_s(self) -> float:
        """In how many seconds to look; infinite when nothing waits for room."""
        return min(self._look_at.values(), default=float("inf")) - self._monotonic()

    def release(self, jobs: Sequence[Job], failed: MutableMapping[_Key, float]) -> None:
        """Take out of `failed`, and forget, what fits now of what it is time to look at. Blocks."""
        wanted = {job.key: job for job in jobs}
        self._look_at = {key: at for key, at in self._look_at.items() if key in wanted}
        due = [key for key, at in self._look_at.items() if at <= self._monotonic()]
        found = [key for key in due if self._fits(wanted[key].manifest)]
        self._look_at |= dict.fromkeys(due, self._monotonic() + LOOK_S)
        for key in found:
            del self._look_at[key]
            failed.pop(key, None)

    def _fits(self, manifest: Manifest | None) -> bool:
        try:
            if manifest is not None:
                self._check_room(manifest)
        except (OSError, DiskFullError):
            return False
        return True

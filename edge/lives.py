"""What the daemons before this one died of, and what happened to links.db: both are told upstream like the rest.

A life is noted in the file of attempts, which takes words on a disk that is full: a clean end takes the note away,
anything else leaves it, with a word for the reason where there was time for one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from store import incidents
from store.attempts import Attempts
from store.database import Database
from store.writer import Writer

_FREE_BYTES_MIN: Final = 1 << 20
_KILLED: Final = "killed"
_REASONS: Final = ("disk-full", "disk-read-only", "error", _KILLED)


class Lives:
    """The lives of the daemons of one data folder."""

    def __init__(self, attempts: Attempts, data: Path) -> None:
        self._attempts = attempts
        self._data = data

    @contextmanager
    def one(self) -> Iterator[None]:
        """Live once: until cancelled, which is a clean end, or until something else ends it."""
        self._attempts.note(_key(_KILLED))
        try:
            yield
        except asyncio.CancelledError:
            self._attempts.forget(_key(_KILLED))
            raise
        except BaseException:
            self._attempts.forget(_key(_KILLED))
            self._attempts.note(_key(self._reason()))
            raise

    def _reason(self) -> str:
        try:
            if os.statvfs(self._data).f_flag & os.ST_RDONLY:
                return "disk-read-only"
            if shutil.disk_usage(self._data).free < _FREE_BYTES_MIN:
                return "disk-full"
        except OSError:
            pass
        return "error"

    async def tell(self, database: Database, links: Database, writer: Writer) -> None:
        """Write down in `database`, the writer's, what the lives before ended with and the incidents of `links`.

        At least once: a cut in between has it told again.
        """
        while found := incidents.unreported(links):
            await writer.run(partial(incidents.take_over, database, found))
            incidents.mark_reported(links, [each.id for each in found])
        for reason in _REASONS:
            times = self._attempts.count(_key(reason))
            if times:
                values = {"reason": reason, "times": times}
                await writer.run(partial(incidents.record, database, "daemon.died", values, 0))
                self._attempts.forget(_key(reason))


def _key(reason: str) -> bytes:
    return b"the daemon died: " + reason.encode().ljust(15)

"""Lived time: seconds that a database has been served, over all lives of its daemon; the age of what is kept.

What was delivered is kept for days in case the gateway loses it, and an innocent parcel is tried again after one. Wall
time cannot measure that: a gateway whose own clock is wrong, or a truck that learns the time, moves it by weeks. This
only counts what monotonic clocks have measured, so it may fall behind (while the power is off, and by a few minutes at
each cut) and then something is kept longer. It never jumps ahead. And only a gateway that was heard since can have said
what it lacks: while it is silent nothing gets older.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from store.database import Database
from store.settings import Settings

_LIVED, _HEARD = "lived_s", "heard_s"
_NOTED_EVERY_S: Final = 600


class Lived:
    """The lived time of an open database; `note` and `hear` belong into a transaction."""

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._settings = Settings(database)
        self._monotonic = monotonic
        self._before_s = self._settings.get_int(_LIVED)
        self._began_s = monotonic()
        self._noted_s = {name: self._settings.get_int(name) for name in (_LIVED, _HEARD)}
        self.heard_s = self._noted_s[_HEARD]

    def now_s(self) -> int:
        """Return the seconds lived so far."""
        return self._before_s + max(0, int(self._monotonic() - self._began_s))

    def note(self) -> int:
        """Write it down now and then; return what holds now."""
        return self._note(_LIVED)

    def hear(self) -> int:
        """Note that the gateway was heard now; return the time. `heard_s` is when that was last."""
        self.heard_s = self._note(_HEARD)
        return self._note(_LIVED)

    def _note(self, name: str) -> int:
        now_s = self.now_s()
        if now_s - self._noted_s[name] >= _NOTED_EVERY_S:
            self._noted_s[name] = self._settings.raise_int(name, now_s)
        return now_s

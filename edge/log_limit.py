"""A cap on how often one thing is logged, so that a failing source does not fill the disk.

Each key may be logged a few times in a window; what was kept back is counted and said with the next line that goes.
"""

from __future__ import annotations

from typing import Final

WINDOW_S: Final = 900.0
LINES_IN_WINDOW: Final = 3
_KEYS_MAX: Final = 64


class LogLimit:
    """Counts lines by key; a key is one of a few fixed words, never text from outside."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}  # key: (start of the window, lines asked for in it)

    def admit(self, key: str, now_s: float) -> int | None:
        """Return how many lines of `key` were kept back since the last one, or None if this one is kept back too.

        `now_s` is monotonic time.
        """
        start_s, asked = self._windows.get(key, (now_s, 0))
        kept_back = 0
        if now_s - start_s >= WINDOW_S:
            kept_back = max(0, asked - LINES_IN_WINDOW)
            start_s, asked = now_s, 0
        if key in self._windows or len(self._windows) < _KEYS_MAX:
            self._windows[key] = (start_s, asked + 1)
        return kept_back if asked < LINES_IN_WINDOW else None

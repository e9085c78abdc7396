"""Numbers as people see them at a glance: a bar for a share, a row of blocks for days."""

from __future__ import annotations

from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(share: float, *, width: int = 10) -> str:
    """Return a bar for a share between 0 and 1, in eighths of a character; more than all is all of it."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    text = "█" * full + (_EIGHTHS[rest] if rest else "")
    return text + "░" * (width - len(text))


def sparkline(values: Sequence[int], *, width: int = 31) -> str:
    """Return a row of blocks, the newest `width` of `values` scaled to their highest; days without use are dots."""
    shown = values[-width:]
    highest = max(shown, default=0)
    return "".join("·" if value <= 0 else _BLOCKS[min(7, value * 8 // (highest + 1))] for value in shown)

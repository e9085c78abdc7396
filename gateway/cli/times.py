"""Instants and durations as people type them: `2h`, `7d`, `2026-11-01`, `2026-11-01T06:30Z`, Unix seconds."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"([0-9]{1,9})\s*(s|m|min|h|d|w)")


def now_s() -> int:
    """Return the time now (Unix s)."""
    return int(time.time())


def now_ms() -> int:
    """Return the time now (Unix ms)."""
    return int(time.time() * 1000)


def duration(text: str) -> int:
    """Return a length of time in seconds: `90s`, `15m`, `2h`, `7d`, `1w`, or a plain number of seconds."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a duration: write 90s, 15m, 2h or 7d")
    return int(match[1]) * _UNITS_S[match[2]]


def instant(text: str) -> int:
    """Return an instant in Unix ms: `2h` (ago), a date or time (UTC unless it says otherwise), or Unix seconds."""
    stripped = text.strip()
    if re.fullmatch(r"[0-9]{9,12}", stripped):
        return int(stripped) * 1000
    match = _DURATION.fullmatch(stripped)
    if match is not None:
        return now_ms() - int(match[1]) * _UNITS_S[match[2]] * 1000
    try:
        moment = datetime.fromisoformat(stripped)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time: write 2h (ago), 2026-11-01 or 2026-11-01T06:30Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def coming(text: str) -> int:
    """Return an instant to come in Unix seconds: `5d` (from now), or a date or time as `instant` takes them."""
    match = _DURATION.fullmatch(text.strip())
    return now_s() + int(match[1]) * _UNITS_S[match[2]] if match is not None else instant(text) // 1000

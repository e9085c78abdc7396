"""Logs of both daemons: one JSON object a line on stderr, events with fields, errors with their traceback.

Each event may be written so often a minute and no more: whoever can make a daemon log something (a truck that went bad,
a stranger that joins) must not fill its disk. What is kept back is counted and said with the next one that passes.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

import structlog
from structlog.typing import EventDict, WrappedLogger

EVENTS_A_PERIOD = 120
PERIOD_S = 60.0
_EVENTS_MAX = 512


class LogCap:
    """A structlog processor that drops an event's records beyond `EVENTS_A_PERIOD` in `PERIOD_S`."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._counts: dict[str, tuple[float, int]] = {}  # event: (start of its period, records in it)

    def __call__(self, _logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
        """Return the record, or raise `structlog.DropEvent`."""
        event, now = str(event_dict.get("event")), self._monotonic()
        began, count = self._counts.get(event, (now, 0))
        if now - began >= PERIOD_S:
            if count > EVENTS_A_PERIOD:
                event_dict["suppressed"] = count - EVENTS_A_PERIOD
            began, count = now, 0
        if len(self._counts) >= _EVENTS_MAX:
            self._counts.clear()  # events are words of ours, a few dozen
        self._counts[event] = (began, count + 1)
        if count >= EVENTS_A_PERIOD:
            raise structlog.DropEvent
        return event_dict


def set_up_logs(level: str) -> None:
    """Write events of `level` and above to stderr."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            LogCap(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )

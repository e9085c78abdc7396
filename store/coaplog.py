"""A logger for libraries that would let a stranger fill the disk: errors only, few, short, without tracebacks.

Stock aiocoap wrote 16.8 MB of tracebacks for 100,000 junk datagrams. What is held back is counted and said with the
next record that passes; the datagrams themselves are counted by the meter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

RECORDS_A_PERIOD = 20
PERIOD_S = 60.0
DETAIL_CHARS_MAX = 300


class CappedLogger(logging.Logger):
    """Hands at most `RECORDS_A_PERIOD` records in `PERIOD_S` to the handlers of `parent`; its children are itself."""

    def __init__(self, name: str, parent: logging.Logger) -> None:
        super().__init__(name, logging.ERROR)
        self.parent = parent
        self.suppressed = 0
        self._period_began = time.monotonic()
        self._passed = 0

    def getChild(self, suffix: str) -> CappedLogger:  # noqa: N802 - the name is the standard library's
        """Return this logger: a child would have a cap of its own."""
        return self

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
        **unknown: object,
    ) -> None:
        # `unknown`: aiocoap 0.4.17 passes exception= in Pipe._add_event, at which a plain logger raises TypeError.
        now = time.monotonic()
        if now - self._period_began >= PERIOD_S:
            self._period_began, self._passed = now, 0
        if self._passed >= RECORDS_A_PERIOD:
            self.suppressed += 1
            return
        self._passed += 1
        suppressed, self.suppressed = self.suppressed, 0
        detail = _rendered(msg, args)[:DETAIL_CHARS_MAX]
        super()._log(level, "coap.library_error detail=%r suppressed=%d", (detail, suppressed))


def quiet_stock_loggers() -> None:
    """Silence the loggers that aiocoap takes by name and not from its context."""
    for name in ("coap", "coap-server", "coap-server.oscore-site", "aiocoap"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _rendered(msg: object, args: Any) -> str:
    try:
        return str(msg) % args if args else str(msg)
    except Exception as error:  # the repr of a hostile message may fail in any way
        return f"{msg!s:.100} ({type(error).__name__} while formatting)"

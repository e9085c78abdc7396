"""One period in which a link answers, as the rest of the daemon hears of it."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from tenacity import RetryCallState

from protocol.messages import Ack

log = structlog.get_logger("edge.contact")


@dataclass(frozen=True, slots=True)
class Contact:
    """What the rest of the daemon hears after each acknowledgement; `asked_at` is when its request left (monotonic)."""

    link: str
    ack: Ack
    asked_at: float


def tell_failure(link: str, state: RetryCallState) -> None:
    """Log that a contact failed, and why."""
    failure = state.outcome.exception() if state.outcome else None
    log.info("contact.failed", link=link, attempt=state.attempt_number, reason=str(failure))

"""Every error of the protocol, by whose fault it is.

`PeerError` and its subclasses mean that bytes from outside were wrong: they are caught at the border, counted, and
answered; they never stop a daemon. `LocalError` means that this side asked for something that it may not do.
"""

from __future__ import annotations


class DigitruckError(Exception):
    """Base of every error that this software raises on purpose."""


class PeerError(DigitruckError):
    """The peer, a stick, a file or a person sent something that does not hold."""


class MalformedError(PeerError):
    """Bytes that are not well formed, not deterministic, or beyond a limit."""


class SignatureError(PeerError):
    """A signature, a threshold or a key does not verify."""


class UntrustedError(PeerError):
    """Well formed and signed, but not by whom, for whom, or when it must be."""


class RollbackError(UntrustedError):
    """A version lower than, or different at, the highest version trusted so far."""


class ExpiredError(UntrustedError):
    """The document's validity has ended, by a clock that is trusted."""


class UnknownSchemaError(PeerError):
    """A batch names a schema number that is not registered (yet)."""

    def __init__(self, number: int) -> None:
        super().__init__(f"schema {number} is not registered")
        self.number = number


class UnknownEpochError(PeerError):
    """A parcel left its epoch out, and the gateway does not know the current one."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the upload names no epoch: {why}")


class LocalError(DigitruckError):
    """This side asked for something that its own rules refuse."""


class BudgetExceededError(LocalError):
    """Sending would spend more than the budget of this link and period still holds."""


class QueueFullError(LocalError):
    """The queue's share of the disk is used up and nothing of lower precedence can make room."""

"""What the fleet store refuses, by whose fault it is."""

from __future__ import annotations

from enum import StrEnum

from protocol.errors import LocalError, PeerError


class SchemaVersionError(LocalError):
    """The database's schema is not the one that this release works with."""


class UnknownTruckError(LocalError):
    """No truck of this name is enrolled."""

    def __init__(self, truck: str) -> None:
        super().__init__(f"no truck named {truck} is enrolled")
        self.truck = truck


class UnknownRolloutError(LocalError):
    """No rollout of this digest is here."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"no rollout {digest} is here")


class EnrolmentReason(StrEnum):
    """Why a one-time code was not taken, as whoever holds it at the truck reads it."""

    UNKNOWN = "this code is unknown here: a newer one replaced it, or another gateway made it"
    USED = "this code was used already"
    EXPIRED = "this code has expired"
    OTHER_TRUCK = "this code is for another truck"
    KEY_TAKEN = "these keys are another truck's: a copied disk joins with an empty data folder"


class EnrolmentError(PeerError):
    """A one-time code, or the keys that came with it, cannot be taken."""

    def __init__(self, reason: EnrolmentReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class DocumentConflictError(PeerError):
    """Another document already has this version (or another manifest this label) of the same name."""


class StaleContextError(LocalError):
    """An OSCORE context is gone or someone else reserved its sequence numbers: run EDHOC again."""


class KidTakenError(PeerError):
    """A key id belongs to another truck or link: begin another handshake."""

    def __init__(self, kid: bytes) -> None:
        super().__init__(f"the kid {kid.hex()} is in use")


class RolledUpError(LocalError):
    """A batch was rolled up by someone else meanwhile: nothing was added."""


class TokenNameError(LocalError):
    """A token of this name exists already."""


class DatabaseUnsupportedError(LocalError):
    """What was asked for needs another kind of database; the message says what to do instead."""

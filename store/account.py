"""Whose account a datagram is booked on: the ledger's columns beside the link."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.numbers import Precedence


@dataclass(frozen=True, slots=True)
class Account:
    """Why bytes were spent. A gateway also knows the truck and the link; on a truck the socket is the link's own.

    Causes in use: batch, event, receipt, schema, tombstone, hello, document, content, handshake, enrol, refused.
    """

    precedence: Precedence
    cause: str
    truck: str | None = None
    link: str | None = None

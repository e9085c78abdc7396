"""Tokens for CoAP requests: one byte while few are asked, longer ones before any could be mistaken (RFC 7252 5.3.1).

A token goes both ways in clear, so each of its bytes is paid for twice. It may be used again once no answer to its last
request can still arrive; an answer that came to the wrong request would not verify and so end a session.
"""

from __future__ import annotations

from collections.abc import Callable

# An answer is given up by then: longer than the longest wait for one, and than a datagram may linger in a network.
REST_S = 120.0
_BYTE_VALUES = 256
_LONG_BYTES = 2


class Tokens:
    """Draws tokens for one socket; those of one byte rest for `REST_S` after each use."""

    def __init__(self, *, monotonic: Callable[[], float], first: int) -> None:
        """`first` is where to begin: a number that another process on the same port did not just begin with."""
        self._monotonic = monotonic
        self._next = first % _BYTE_VALUES
        self._used = [float("-inf")] * _BYTE_VALUES
        self._long = first

    def next(self) -> bytes:
        """Return a token that no answer on its way can carry."""
        now = self._monotonic()
        if now - self._used[self._next] >= REST_S:
            token = bytes([self._next])
            self._used[self._next] = now
            self._next = (self._next + 1) % _BYTE_VALUES
            return token
        # As many as a pair of sockets has message ids, so that it comes round no sooner than those do.
        self._long += 1
        return (self._long % (1 << 8 * _LONG_BYTES)).to_bytes(_LONG_BYTES, "big")

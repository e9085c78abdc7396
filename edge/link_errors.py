"""What may go wrong on a link, by what helps: waiting, a new handshake, or nothing on this side."""

from __future__ import annotations

from protocol.errors import DigitruckError, PeerError


class LinkDownError(DigitruckError):
    """Nothing comes back over this link now; it is worth trying again later."""


class SessionLostError(DigitruckError):
    """The gateway does not know this session (any more). `renewable`: the next request makes a new one at once."""

    renewable = False


class RefusedError(PeerError):
    """The gateway answered with an error."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"the gateway answered {code}: {text}" if text else f"the gateway answered {code}")
        self.code = code

    @property
    def is_passing(self) -> bool:
        """Whether the gateway has a trouble of its own (5.xx), so that the same request may do later."""
        return self.code.startswith("5.")

"""OSCORE contexts of our own (RFC 8613), in the shape that aiocoap wants; the one module here that imports aiocoap.

aiocoap's file-backed context loses its sequence number in a power cut and so reuses nonces; these hold no file.
The owner brings the secrets, the first unused sequence number and a `reserve` hook that makes a block of sequence
numbers durable before the first of them is used (appendix B.1.1). Without a durable replay window the first request is
answered with an Echo challenge (appendix B.1.2, RFC 9175), whose unpredictable value the owner brings too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiocoap import oscore
from aiocoap.message import Message

from protocol.numbers import OSCORE_REPLAY_WINDOW, OSCORE_SEQUENCE_BLOCK


@dataclass(frozen=True, slots=True)
class Secrets:
    """What EDHOC gives each side for one OSCORE context (RFC 9528 appendix A.1)."""

    master_secret: bytes
    master_salt: bytes
    sender_id: bytes
    recipient_id: bytes


class LinkContext(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):  # type: ignore[misc]
    """The OSCORE context of one link between one truck and the gateway."""

    id_context = None

    def __init__(
        self,
        secrets: Secrets,
        *,
        first_sequence: int,
        reserve: Callable[[int], None],
        echo: bytes | None,
        claims: tuple[str, ...] = (),
    ) -> None:
        """Derive the keys. `reserve(n)` returns once it is durable that numbers below n may be used; it may raise.

        `echo` None means that nothing was ever received under these secrets, so that the replay window is empty;
        otherwise it is 8 random bytes, and the window opens with the first request that echoes them.
        """
        self.alg_aead = oscore.algorithms["AES-CCM-16-64-128"]
        self.hashfun = oscore.hashfunctions["sha256"]
        self.sender_id = secrets.sender_id
        self.recipient_id = secrets.recipient_id
        self.derive_keys(secrets.master_salt, secrets.master_secret)
        self.sender_sequence_number = first_sequence
        self.reserved_below = first_sequence
        self._reserve = reserve
        self.recipient_replay_window = oscore.ReplayWindow(OSCORE_REPLAY_WINDOW, lambda: None)
        self.echo_recovery = echo
        if echo is None:
            self.recipient_replay_window.initialize_empty()
        self.authenticated_claims = list(claims)

    def post_seqnoincrease(self) -> None:
        """Make the number just taken durable before its nonce is used; aiocoap calls this in between."""
        if self.sender_sequence_number > self.reserved_below:
            below = self.sender_sequence_number + OSCORE_SEQUENCE_BLOCK - 1
            self._reserve(below)
            self.reserved_below = below

    def protect(
        self, message: Message, request_id: Any = None, *, kid_context: bool | bytes = True
    ) -> tuple[Message, Any]:
        """Protect a message; the outer one keeps the account (precedence, cause) that the inner one is booked on."""
        outer, request_id = super().protect(message, request_id, kid_context=kid_context)
        outer.account = getattr(message, "account", None)
        return outer, request_id


class InitiatingContext(LinkContext):
    """A truck's context whose EDHOC message_3 rides on its requests until the gateway answered one (RFC 9668)."""

    def __init__(self, secrets: Secrets, message_3: bytes, **options: Any) -> None:
        super().__init__(secrets, **options)
        self.message_3: bytes | None = message_3

    def protect(
        self, message: Message, request_id: Any = None, *, kid_context: bool | bytes = True
    ) -> tuple[Message, Any]:
        """Protect a request and put message_3 in front of its ciphertext."""
        outer, request_id = super().protect(message, request_id, kid_context=kid_context)
        if self.message_3 is not None:
            outer.opt.edhoc = True
            outer.payload = self.message_3 + outer.payload
        return outer, request_id

    def unprotect(self, protected_message: Message, request_id: Any = None) -> tuple[Message, Any]:
        """Unprotect a response; the first that verifies shows that the gateway has finished EDHOC."""
        result = super().unprotect(protected_message, request_id)
        self.message_3 = None
        return result  # type: ignore[no-any-return]


def split_combined(payload: bytes) -> tuple[bytes, bytes]:
    """Split the payload of an EDHOC + OSCORE request into message_3 (a CBOR byte string) and ciphertext (RFC 9668 3.2).

    Raises `ValueError` when there is no complete byte string at its start.
    """
    if payload and 0x40 <= payload[0] < 0x58:
        end = 1 + payload[0] - 0x40
    elif len(payload) >= 2 and payload[0] == 0x58:
        end = 2 + payload[1]
    else:
        raise ValueError("no EDHOC message_3 in front of the ciphertext")
    if end >= len(payload):
        raise ValueError("no ciphertext behind the EDHOC message_3")
    return payload[:end], payload[end:]

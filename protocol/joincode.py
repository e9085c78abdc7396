"""The one-time code that enrols a truck: text that fits a QR code, a phone call's patience, and one paste.

It carries what the truck must know before it trusts anything: its own name, where the gateways are, the key that the
gateway proves to hold in EDHOC, the digest of the root to pin, and a secret that the gateway takes once.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from msgspec import Meta, structs

from protocol import cbor, cose
from protocol.errors import MalformedError, PeerError
from protocol.numbers import ADDRESSES_MAX, ENROL_SECRET_BYTES, EXCHANGE_KEYS
from protocol.wire import Digest, Name, WireArray

PREFIX = "DT1-"
_CHECK_BYTES = 3
_CHARS_MAX = 1_024

Address = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}\Z")]


class JoinCode(WireArray, frozen=True):
    """What an enrolment code says. `gateway_key` is the 32-byte x coordinate of the gateway's P-256 EDHOC key.

    `key_number` is that key's; a code of before keys had numbers names the first, 0.
    """

    truck: Name
    addresses: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=ADDRESSES_MAX)]
    secret: Annotated[bytes, Meta(min_length=ENROL_SECRET_BYTES, max_length=ENROL_SECRET_BYTES)]
    gateway_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    root: Digest
    key_number: Annotated[int, Meta(ge=0, le=EXCHANGE_KEYS - 1)] = 0

    def encode(self) -> bytes:
        """Return the deterministic encoding; the first key's number is left out, as it was before keys had numbers."""
        return super().encode() if self.key_number else cbor.encode(structs.astuple(self)[:-1])

    def text(self) -> str:
        """Return the code as text: a prefix, then base32 of the encoding and a short check against typing errors."""
        raw = self.encode()
        return PREFIX + base64.b32encode(raw + cose.digest(raw)[:_CHECK_BYTES]).decode().rstrip("=")


def read_join_code(text: str) -> JoinCode:
    """Return the code in `text`, spaces and case ignored; raise `MalformedError` that says what to do."""
    compact = "".join(text.split()).upper()
    if not compact.startswith(PREFIX) or len(compact) > _CHARS_MAX:
        raise MalformedError(f"an enrolment code begins with {PREFIX}; ask the operator for a new one")
    body = compact.removeprefix(PREFIX)
    try:
        raw = base64.b32decode(body + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError) as error:
        raise MalformedError("the enrolment code has characters it cannot have; copy it again") from error
    if cose.digest(raw[:-_CHECK_BYTES])[:_CHECK_BYTES] != raw[-_CHECK_BYTES:]:
        raise MalformedError("the enrolment code is incomplete or mistyped; copy it again")
    try:
        return JoinCode.decode(raw[:-_CHECK_BYTES])
    except PeerError as error:
        raise MalformedError("the enrolment code is of another version; update this software") from error

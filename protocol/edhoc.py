"""EDHOC key exchange (RFC 9528, by lakers): P-256, cipher suite 2, method 3 (static Diffie-Hellman on both sides).

One handshake gives one OSCORE context for one link of a truck. Credentials are CWT Claims Sets that carry only a
public key; a truck sends its own by value when it joins (the gateway cannot know it yet) and by a 6-byte reference
after. The link's name travels encrypted in message_3. lakers draws its ephemeral keys itself: that entropy is the one
that does not come in as an argument here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cbor2
import lakers

from protocol import cbor, cose
from protocol.errors import MalformedError, PeerError, SignatureError
from protocol.numbers import EAD_LINK
from protocol.oscore import Secrets
from protocol.wire import Name, convert

_KID_BYTES = 6
_OWN_IDENTIFIER = b"\x00"  # a truck only receives responses, which its requests' tokens already tell apart
_MESSAGE_BYTES_MAX = 256
_SECRET_BYTES, _SALT_BYTES = 16, 8


@dataclass(frozen=True, slots=True)
class EdhocKey:
    """A P-256 private key (32 bytes) and the x coordinate of its public key (32 bytes)."""

    private: bytes
    public: bytes

    @property
    def credential(self) -> bytes:
        """The CWT Claims Set that authenticates this key."""
        return credential(self.public)

    def __repr__(self) -> str:
        return f"EdhocKey({self.public.hex()[:16]})"


def generate_key() -> EdhocKey:
    """Make a new key pair (the entropy is lakers' own)."""
    private, public = lakers.p256_generate_key_pair()
    return EdhocKey(private, public)


def credential(public: bytes) -> bytes:
    """Return the CWT Claims Set (RFC 8392, RFC 8747) of a public key: {2: "", 8: {1: COSE_Key}}."""
    key = {1: 2, 2: kid(public), -1: 1, -2: public}
    return cbor.encode({2: "", 8: {1: key}})


def kid(public: bytes) -> bytes:
    """Return the key id by which a credential is referred to."""
    return cose.digest(public)[:_KID_BYTES]


def credential_kid(ccs: bytes) -> bytes:
    """Return the key id inside a credential that `credential` made; raise `MalformedError`."""
    match cbor.decode(ccs):
        case {8: {1: {2: bytes() as reference}}}:
            return reference
    raise MalformedError("not a credential of ours")


class Initiator:
    """The truck's side of one handshake."""

    def __init__(self, key: EdhocKey, gateway_public: bytes, *, link: str, joining: bool) -> None:
        self._key = key
        self._peer = credential(gateway_public)
        self._link = link
        self._transfer = lakers.CredentialTransfer.ByValue if joining else lakers.CredentialTransfer.ByReference
        self._lakers = lakers.EdhocInitiator()

    def message_1(self) -> bytes:
        """Return the payload of the first POST: `true`, then message_1 (RFC 9528 appendix A.2.1)."""
        return b"\xf5" + bytes(self._lakers.prepare_message_1(_OWN_IDENTIFIER, None))

    def finish(self, message_2: bytes) -> tuple[bytes, Secrets]:
        """Verify the gateway's answer and return message_3 with the secrets; raise `SignatureError`."""
        if len(message_2) > _MESSAGE_BYTES_MAX:
            raise MalformedError("an EDHOC message_2 beyond its limit")
        try:
            peer_identifier, _, _ = self._lakers.parse_message_2(message_2)
            self._lakers.verify_message_2(self._key.private, self._key.credential, self._peer)
            link = [lakers.EADItem(EAD_LINK, False, self._link.encode())]
            message_3, _ = self._lakers.prepare_message_3(self._transfer, link)
            self._lakers.completed_without_message_4()
        except ValueError as error:
            raise SignatureError(
                "the gateway did not prove to hold the key that this truck was enrolled with"
            ) from error
        return bytes(message_3), _secrets(self._lakers, sender_id=bytes(peer_identifier), recipient_id=_OWN_IDENTIFIER)


class Responder:
    """The gateway's side of one handshake: pending between message_1 and message_3, then a context."""

    def __init__(self, key: EdhocKey) -> None:
        self._lakers = lakers.EdhocResponder(key.private, key.credential)
        self._peer_identifier = b""
        self.identifier = b""
        self.link = ""

    def answer(self, payload: bytes, identifier: bytes) -> bytes:
        """Return message_2 for a first POST; `identifier` becomes the kid of the truck's requests."""
        if not 2 <= len(payload) <= _MESSAGE_BYTES_MAX or payload[:1] != b"\xf5":
            raise MalformedError("not an EDHOC message_1")
        try:
            peer_identifier, _ = self._lakers.process_message_1(payload[1:])
            message_2 = self._lakers.prepare_message_2(lakers.CredentialTransfer.ByReference, identifier, None)
        except ValueError as error:
            raise MalformedError("an EDHOC message_1 of another method or suite") from error
        self._peer_identifier = bytes(peer_identifier)
        self.identifier = identifier
        return bytes(message_2)

    def read_message_3(self, message_3: bytes) -> PeerIdentity:
        """Return who the peer says it is, NOT yet verified; raise `MalformedError`."""
        if len(message_3) > _MESSAGE_BYTES_MAX:
            raise MalformedError("an EDHOC message_3 beyond its limit")
        try:
            identity, ead = self._lakers.parse_message_3(message_3)
        except ValueError as error:
            raise MalformedError("an EDHOC message_3 that does not decrypt") from error
        for item in ead or ():
            if item.label() == EAD_LINK:
                self.link = convert(bytes(item.value()).decode("utf-8", "replace"), Name)
        if not self.link:
            raise MalformedError("an EDHOC message_3 without the name of its link")
        return _identity(bytes(identity))

    def finish(self, peer_credential: bytes) -> Secrets:
        """Verify message_3 against the peer's credential and return the secrets; raise `SignatureError`."""
        try:
            self._lakers.verify_message_3(peer_credential)
            self._lakers.completed_without_message_4()
        except ValueError as error:
            raise SignatureError("the truck did not prove to hold its key") from error
        return _secrets(self._lakers, sender_id=self._peer_identifier, recipient_id=self.identifier)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """A peer's claim: the key id of a credential that is known, or (when joining) the credential itself."""

    kid: bytes
    credential: bytes | None


def _identity(raw: bytes) -> PeerIdentity:
    try:
        claim = cbor2.loads(raw)
    except (cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
        raise MalformedError("an EDHOC identity that is not CBOR") from error
    match claim:
        case {4: bytes() as reference}:
            return PeerIdentity(reference, None)
        case {14: {8: {1: {-2: bytes() as public}}}} if len(public) == 32:
            # Rebuilt rather than taken over: a credential has one form, whatever else the peer put beside its key.
            return PeerIdentity(kid(public), credential(public))
    raise MalformedError("an EDHOC identity of a kind that is not used here")


def _secrets(side: lakers.EdhocInitiator | lakers.EdhocResponder, *, sender_id: bytes, recipient_id: bytes) -> Secrets:
    if sender_id == recipient_id:
        raise PeerError("both sides chose the same connection identifier")
    secret = bytes(side.edhoc_exporter(0, [], _SECRET_BYTES))
    salt = bytes(side.edhoc_exporter(1, [], _SALT_BYTES))
    return Secrets(secret, salt, sender_id, recipient_id)

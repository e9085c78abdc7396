"""EDHOC key exchange (RFC 9528, by lakers): P-256, cipher suite 2, method 3 (static Diffie-Hellman on both sides).

One handshake gives one OSCORE context for one link of a truck. Credentials are CWT Claims Sets that carry only a
public key; a truck sends its own by value when it joins (the gateway cannot know it yet) and by a 6-byte reference
after. The gateway's reference is one byte, always the same: a truck knows which key it expects, and believes no other.
While a gateway's key is rotated there are two, with numbers: C_I, which a truck needs for nothing else, says which one.
The link's name travels encrypted in message_3. lakers draws its ephemeral keys itself: that entropy is the one that
does not come in as an argument here.

lakers 0.6.2 panics on a point that is not on the curve and on a ciphertext shorter than its tag, from anybody and
before anything is authenticated; a panic passes `except Exception` and writes to stderr. So points and lengths are
checked before lakers sees them, and a panic that is left counts as the peer's fault like any other refusal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cbor2
import lakers
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

from protocol import cbor, cose
from protocol.errors import MalformedError, PeerError, SignatureError
from protocol.numbers import EAD_LINK, EXCHANGE_KEYS
from protocol.oscore import Secrets
from protocol.wire import Name, convert

_KID_BYTES = 6
_GATEWAY_KID = b"\x00"
_MESSAGE_BYTES_MAX = 256
_SECRET_BYTES, _SALT_BYTES = 16, 8
_POINT_BYTES, _TAG_BYTES = 32, 8
_BYTES_32 = b"\x58\x20"  # the head of a byte string of 32 bytes
_SUITES_MAX = 8


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
    return _claims(public, kid(public))


def gateway_credential(public: bytes) -> bytes:
    """Return the credential of a gateway's key, whose key id is short because a truck knows only one."""
    return _claims(public, _GATEWAY_KID)


def _claims(public: bytes, reference: bytes) -> bytes:
    return cbor.encode({2: "", 8: {1: {1: 2, 2: reference, -1: 1, -2: public}}})


def kid(public: bytes) -> bytes:
    """Return the key id by which a credential is referred to."""
    return cose.digest(public)[:_KID_BYTES]


def credential_kid(ccs: bytes) -> bytes:
    """Return the key id inside a credential that `credential` made; raise `MalformedError`."""
    match cbor.decode(ccs):
        case {8: {1: {2: bytes() as reference}}}:
            return reference
    raise MalformedError("not a credential of ours")


def credential_key(ccs: bytes) -> bytes:
    """Return the x coordinate inside a credential that `credential` made; raise `MalformedError`."""
    match cbor.decode(ccs):
        case {8: {1: {-2: bytes() as public}}}:
            return public
    raise MalformedError("not a credential of ours")


class Initiator:
    """The truck's side of one handshake; `number` is that of the gateway's key."""

    def __init__(self, key: EdhocKey, gateway_public: bytes, *, link: str, joining: bool, number: int = 0) -> None:
        self._key = key
        # A truck only receives responses, which its requests' tokens already tell apart.
        self._identifier = bytes([number])
        self._peer = gateway_credential(gateway_public)
        self._link = link
        self._transfer = lakers.CredentialTransfer.ByValue if joining else lakers.CredentialTransfer.ByReference
        self._lakers = lakers.EdhocInitiator()

    def message_1(self) -> bytes:
        """Return the payload of the first POST: `true`, then message_1 (RFC 9528 appendix A.2.1)."""
        return b"\xf5" + bytes(self._lakers.prepare_message_1(self._identifier, None))

    def finish(self, message_2: bytes) -> tuple[bytes, Secrets]:
        """Verify the gateway's answer and return message_3 with the secrets; raise `SignatureError`."""
        _check_message_2(message_2)
        with _refusing(SignatureError, "the gateway did not prove to hold the key that this truck knows"):
            peer_identifier, _, _ = self._lakers.parse_message_2(message_2)
            self._lakers.verify_message_2(self._key.private, self._key.credential, self._peer)
            link = [lakers.EADItem(EAD_LINK, False, self._link.encode())]
            message_3, _ = self._lakers.prepare_message_3(self._transfer, link)
            self._lakers.completed_without_message_4()
        sender_id = bytes(peer_identifier)
        return bytes(message_3), _secrets(self._lakers, sender_id=sender_id, recipient_id=self._identifier)


def expected_key(payload: bytes) -> int:
    """Return the number of the gateway key that a first POST expects (C_I of message_1); raise `MalformedError`."""
    if not 2 <= len(payload) <= _MESSAGE_BYTES_MAX:
        raise MalformedError("not an EDHOC message_1")
    at = _end_of_point(payload[1:]) + 1
    # Any other identifier is that of a stack which knows of one key only.
    return payload[at] if payload[at] < EXCHANGE_KEYS else 0


class Responder:
    """The gateway's side of one handshake: pending between message_1 and message_3, then a context."""

    def __init__(self, key: EdhocKey) -> None:
        self._lakers = lakers.EdhocResponder(key.private, gateway_credential(key.public))
        self._peer_identifier = b""
        self.identifier = b""
        self.link = ""

    def answer(self, payload: bytes, identifier: bytes) -> bytes:
        """Return message_2 for a first POST; `identifier` becomes the kid of the truck's requests."""
        if not 2 <= len(payload) <= _MESSAGE_BYTES_MAX or payload[:1] != b"\xf5":
            raise MalformedError("not an EDHOC message_1")
        end = _end_of_point(payload[1:])
        _check_point(payload[1 + end - _POINT_BYTES : 1 + end])
        with _refusing(MalformedError, "an EDHOC message_1 of another method or suite"):
            peer_identifier, _ = self._lakers.process_message_1(payload[1:])
            message_2 = self._lakers.prepare_message_2(lakers.CredentialTransfer.ByReference, identifier, None)
        self._peer_identifier = bytes(peer_identifier)
        self.identifier = identifier
        return bytes(message_2)

    def read_message_3(self, message_3: bytes) -> PeerIdentity:
        """Return who the peer says it is, NOT yet verified; raise `MalformedError`."""
        if len(_only_bytes(message_3)) <= _TAG_BYTES:
            raise MalformedError("an EDHOC message_3 shorter than its tag")
        with _refusing(MalformedError, "an EDHOC message_3 that does not decrypt"):
            identity, ead = self._lakers.parse_message_3(message_3)
        for item in ead or ():
            if item.label() == EAD_LINK:
                self.link = convert(bytes(item.value()).decode("utf-8", "replace"), Name)
        if not self.link:
            raise MalformedError("an EDHOC message_3 without the name of its link")
        return _identity(bytes(identity))

    def finish(self, peer_credential: bytes) -> Secrets:
        """Verify message_3 against the peer's credential and return the secrets; raise `SignatureError`."""
        with _refusing(SignatureError, "the truck did not prove to hold its key"):
            self._lakers.verify_message_3(peer_credential)
            self._lakers.completed_without_message_4()
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
            _check_point(public)
            # Rebuilt rather than taken over: a credential has one form, whatever else the peer put beside its key.
            return PeerIdentity(kid(public), credential(public))
    raise MalformedError("an EDHOC identity of a kind that is not used here")


@contextmanager
def _refusing(kind: type[PeerError], text: str) -> Iterator[None]:
    """Turn whatever lakers raises about a peer's message into `kind`."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise kind(text) from error
    except BaseException as error:
        # pyo3's exception of a Rust panic derives from BaseException and cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise kind(text) from None


def _check_point(x: bytes) -> None:
    """Raise `MalformedError` unless `x` is the x coordinate of a point of P-256."""
    try:
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x02" + x)
    except ValueError as error:
        raise MalformedError("an EDHOC key that is no point of its curve") from error


def _end_of_point(message_1: bytes) -> int:
    """Return where G_X of message_1 = (METHOD, SUITES_I, G_X, C_I, ...), a CBOR sequence, ends (RFC 9528 5.2.1)."""
    at = 1
    suites = message_1[1] - 0x80 if len(message_1) > 1 and 0x80 <= message_1[1] <= 0x80 + _SUITES_MAX else None
    at += 1 if suites is None else 1 + suites
    end = at + len(_BYTES_32) + _POINT_BYTES
    if len(message_1) <= end or message_1[at : at + len(_BYTES_32)] != _BYTES_32:
        raise MalformedError("an EDHOC message_1 of another method or suite")
    return end


def _check_message_2(message_2: bytes) -> None:
    # message_2 is one byte string: G_Y, then CIPHERTEXT_2 (RFC 9528 section 5.3.1).
    content = _only_bytes(message_2)
    if len(content) <= _POINT_BYTES:
        raise MalformedError("an EDHOC message_2 shorter than a key")
    _check_point(content[:_POINT_BYTES])


def _only_bytes(message: bytes) -> bytes:
    """Return the content of the one CBOR byte string that `message` has to be."""
    if len(message) > _MESSAGE_BYTES_MAX:
        raise MalformedError("an EDHOC message beyond its limit")
    content = cbor.decode(message)
    if not isinstance(content, bytes):
        raise MalformedError("an EDHOC message that is no byte string")
    return content


def _secrets(side: lakers.EdhocInitiator | lakers.EdhocResponder, *, sender_id: bytes, recipient_id: bytes) -> Secrets:
    if sender_id == recipient_id:
        raise PeerError("both sides chose the same connection identifier")
    secret = bytes(side.edhoc_exporter(0, [], _SECRET_BYTES))
    salt = bytes(side.edhoc_exporter(1, [], _SALT_BYTES))
    return Secrets(secret, salt, sender_id, recipient_id)

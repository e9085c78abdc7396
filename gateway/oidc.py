"""Signing people in by OpenID Connect: the code flow with PKCE (RFC 7636), nonce and state, as a confidential or public
client of one provider (OpenID Connect Core 1.0 section 3.1, Discovery 1.0).

What is believed: the ID token, signed by a key that the issuer publishes now, made for this client, in answer to this
very request (nonce). The issuer named in the callback must be the configured one (RFC 9207). Deliberately absent: the
userinfo endpoint, refresh tokens, implicit and hybrid flows, symmetric and unsigned ID tokens, redirects of the
provider's own endpoints.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec
import structlog
from joserfc import errors, jwk, jws, jwt

from gateway.config import OidcSettings
from protocol.errors import LocalError, PeerError

_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
_ANSWER_BYTES_MAX: Final = 256 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
# Clocks of two servers may differ this much.
_LEEWAY_S: Final = 60
_METADATA_S: Final = 3_600.0
# A token under an unknown key makes the keys be fetched again, but not more often than this.
_KEYS_AGAIN_S: Final = 30.0
T = TypeVar("T")
_log = structlog.get_logger(__name__)


class SignInError(PeerError):
    """The provider's answer is not believed, or gives no role; the text is for the person who signs in."""


class ProviderUnreachableError(PeerError):
    """The provider does not answer as one: nobody can sign in this way now."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed in: the issuer's unchanging `subject`, a `name` for people, and the role's name."""

    subject: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class LoginSecrets:
    """What one sign-in is bound to, all made from one secret that only the browser has."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def derive(cls, secret: str) -> LoginSecrets:
        """Return the three, each 43 characters of base64url (256 bits)."""
        return cls(*(_base64url(hashlib.sha256(f"{use} {secret}".encode()).digest()) for use in cls.__slots__))

    @property
    def challenge(self) -> str:
        """The PKCE challenge, method S256."""
        return _base64url(hashlib.sha256(self.verifier.encode()).digest())


def read_secret(path: Path) -> str:
    """Return the client's secret, the one line of a file; raise `LocalError` with the next step."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"{path}: the secret of [oidc] cannot be read ({error}): write it there, mode 0600") from error
    if not secret or "\n" in secret:
        raise LocalError(f"{path}: the secret of [oidc] is one line of text")
    return secret


class _Metadata(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _TokenAnswer(msgspec.Struct, frozen=True):
    id_token: str


class OidcProvider:
    """One OpenID provider, as its client."""

    def __init__(
        self,
        settings: OidcSettings,
        *,
        client_secret: str | None,
        now_s: Callable[[], int],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._secret = client_secret
        self._now_s = now_s
        self._monotonic_s = monotonic_s
        self._metadata: tuple[float, _Metadata] | None = None
        self._keys: tuple[float, jwk.KeySet] | None = None
        self._fetching = asyncio.Lock()

    @property
    def settings(self) -> OidcSettings:
        """The configuration that this client was made with."""
        return self._settings

    async def address(self, login: LoginSecrets) -> str:
        """Return where to send the browser; raise `ProviderUnreachableError`."""
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._settings.redirect_url,
            "scope": " ".join(self._settings.scopes),
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": login.challenge,
            "code_challenge_method": "S256",
        }
        endpoint = (await self._discover()).authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def redeem(self, code: str, login: LoginSecrets) -> Identity:
        """Turn the code of a callback into who signed in; raise `SignInError` or `ProviderUnreachableError`."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._settings.redirect_url,
            "client_id": self._settings.client_id,
            "code_verifier": login.verifier,
        }
        metadata = await self._discover()
        # RFC 6749 section 2.3.1: a secret in the body, which every provider takes that takes a secret at all by POST.
        body = form if self._secret is None else form | {"client_secret": self._secret}
        status, answer = await self._fetch("POST", metadata.token_endpoint, body)
        if 400 <= status < 500:
            raise SignInError("the identity provider does not take this sign-in: begin again")
        token = _decode(status, answer, _TokenAnswer).id_token
        return self._identity(await self._verify(token, login.nonce))

    async def _verify(self, token: str, nonce: str) -> Mapping[str, Any]:
        """Return an ID token's claims (Core section 3.1.3.7); raise `SignInError`."""
        keys = await self._key_set(wanted=_key_id(token))
        try:
            claims = jwt.decode(token, keys, algorithms=list(_ALGORITHMS)).claims
            jwt.JWTClaimsRegistry(
                now=self._now_s(),
                leeway=_LEEWAY_S,
                iss={"essential": True, "value": self._settings.issuer},
                aud={"essential": True, "value": self._settings.client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(claims)
        except (errors.JoseError, ValueError, TypeError, RecursionError) as error:
            _log.warning("oidc.refused", reason=type(error).__name__, claim=getattr(error, "claim", None))
            raise SignInError("the identity provider's answer is not valid for this sign-in: begin again") from error
        audience = claims["aud"]
        party = claims.get("azp")
        if not isinstance(claims["nonce"], str) or (isinstance(audience, list) and len(audience) > 1 and party is None):
            raise SignInError("the identity provider's answer is not valid for this sign-in: begin again")
        if party is not None and party != self._settings.client_id:
            raise SignInError("the identity provider's answer was made for another client")
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        subject = str(claims["sub"])[:255]
        name = claims.get(self._settings.name_claim)
        held = claims.get(self._settings.role_claim)
        values = held if isinstance(held, list) else [held]
        for value, role in self._settings.roles.items():
            if value in values:
                return Identity(subject, name if isinstance(name, str) and name else subject, role)
        _log.warning("oidc.no_role", subject=subject)
        raise SignInError("you are known, but no role here is given to you: ask who runs the gateway")

    async def _discover(self) -> _Metadata:
        async with self._fetching:
            if self._metadata is None or self._monotonic_s() - self._metadata[0] > _METADATA_S:
                where = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
                found = _decode(*await self._fetch("GET", where), _Metadata)
                if found.issuer != self._settings.issuer:
                    raise ProviderUnreachableError("the identity provider calls itself otherwise than configured")
                for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
                    if self._settings.issuer.startswith("https:") and not address.startswith("https:"):
                        raise ProviderUnreachableError("the identity provider names an address that is not https")
                self._metadata = (self._monotonic_s(), found)
            return self._metadata[1]

    async def _key_set(self, *, wanted: str | None) -> jwk.KeySet:
        metadata = await self._discover()
        async with self._fetching:
            now = self._monotonic_s()
            old = self._keys is None or now - self._keys[0] > _METADATA_S
            if not old and self._keys is not None and now - self._keys[0] > _KEYS_AGAIN_S:
                old = wanted not in {key.kid for key in self._keys[1].keys}
            if old or self._keys is None:
                status, answer = await self._fetch("GET", metadata.jwks_uri)
                try:
                    keys = jwk.KeySet.import_key_set(_decode(status, answer, dict))  # type: ignore[arg-type]
                except (errors.JoseError, ValueError, KeyError, TypeError) as error:
                    raise ProviderUnreachableError("the identity provider's keys cannot be read") from error
                self._keys = (now, keys)
            return self._keys[1]

    async def _fetch(self, method: str, address: str, form: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.request(method, address, data=form, allow_redirects=False) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_chunked(16_384):
                    body += chunk
                    if len(body) > _ANSWER_BYTES_MAX:
                        raise ProviderUnreachableError("the identity provider's answer is too long")
                return response.status, bytes(body)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            _log.warning("oidc.unreachable", error=type(error).__name__)
            raise ProviderUnreachableError("the identity provider does not answer: try again later") from error


def _decode(status: int, answer: bytes, kind: type[T]) -> T:
    try:
        if status == 200:
            return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    _log.warning("oidc.unreadable", status=status)
    raise ProviderUnreachableError("the identity provider does not answer as one: try again later")


def _key_id(token: str) -> str | None:
    """Return which key a token says it is signed with, unverified; raise `SignInError` for what is no token."""
    try:
        kid = jws.extract_compact(token.encode()).headers().get("kid")
    except (errors.JoseError, ValueError, TypeError) as error:
        raise SignInError("the identity provider's answer is not valid for this sign-in: begin again") from error
    return kid if isinstance(kid, str) else None


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()

"""What the rest of the gateway gives to the HTTP API: time, join codes, document acceptance, decoded telemetry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry

from gateway.config import OidcSettings
from gateway.couriers import Couriers
from gateway.fleetfile import FleetTruck
from gateway.oidc import Identity, LoginSecrets
from gateway.ownkeys import GatewayKeys
from gateway.rollouts import Rollouts
from gateway.series import SamplesPage, Table
from protocol.messages import PackOffer, PackRequest
from store.fleet.records import DocumentRecord


class TelemetrySource(Protocol):
    """Reads stored batches and rollups of one truck."""

    async def samples(
        self, truck: str, *, channels: Sequence[str], since_ms: int, until_ms: int, step_s: int, rows_max: int
    ) -> SamplesPage:
        """Return the values in [since_ms, until_ms); no `channels` means all, `step_s` 0 means every reading."""
        ...

    async def table(self, truck: str, *, channels: Sequence[str], since_ms: int, until_ms: int, step_s: int) -> Table:
        """Return the same as a table of any length, read while it is written."""
        ...


class AcceptDocument(Protocol):
    """Checks a signed document against what the gateway trusts, and stores it."""

    async def __call__(self, signed: bytes, actor: str) -> DocumentRecord:
        """Return the record, also for a document that is there already; raise `PeerError` if it is not believed."""
        ...


@dataclass(frozen=True, slots=True)
class TrustState:
    """The gateway's own keys, what is wrong with trust, and documents that only revoked keys signed (digests)."""

    keys: GatewayKeys
    warnings: list[str]
    unsigned: frozenset[bytes]


class OfferPack(Protocol):
    """Makes packs (`gateway.packs.Packs.offer`)."""

    async def __call__(self, request: PackRequest, /) -> PackOffer:
        """Return the pack, or an offer without a digest while it is being made; raise `PeerError` if it cannot be."""
        ...


class SignIn(Protocol):
    """A provider at which people sign in (`gateway.oidc.OidcProvider`)."""

    @property
    def settings(self) -> OidcSettings:
        """Who it is, and what a session there is worth here."""
        ...

    async def address(self, login: LoginSecrets) -> str:
        """Return where to send the browser; raise `ProviderUnreachableError`."""
        ...

    async def redeem(self, code: str, login: LoginSecrets) -> Identity:
        """Return who signed in; raise `SignInError` or `ProviderUnreachableError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The injected parts.

    `now_ms` is wall time in Unix ms. `make_code` turns (truck, secret) into a join code, and raises `DigitruckError`
    with the next step when that cannot be done yet. `freshness_key` gives the gateway's public Ed25519 key (32 bytes),
    which a root must name; `is_revoked` says whether the role table shuts out a truck's name; `rollouts` brings
    rollouts on. Without `sign_in` only tokens are taken. `described` gives the trucks of the fleet file.
    """

    now_ms: Callable[[], int]
    make_code: Callable[[str, bytes], str]
    accept_document: AcceptDocument
    telemetry: TelemetrySource
    freshness_key: Callable[[], bytes]
    rollouts: Rollouts
    trust: Callable[[], TrustState] | None = None
    is_revoked: Callable[[str], bool] = lambda truck: False
    sign_in: SignIn | None = None
    couriers: Couriers | None = None
    offer_pack: OfferPack | None = None
    described: Callable[[], Mapping[str, FleetTruck]] = dict
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

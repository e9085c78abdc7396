"""What the rest of the gateway gives to the HTTP API: time, join codes, document acceptance, decoded telemetry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry

from gateway.config import OidcSettings
from gateway.oidc import Identity, LoginSecrets
from store.fleet.records import DocumentRecord


@dataclass(frozen=True, slots=True)
class Series:
    """One channel's values in a period, oldest first. `t_ms` is the row's time, or the start of its step.

    `v` are physical values in `unit`: the readings themselves, or means over a step. `low`, `high`, `last` and `count`
    are only there for steps, each as long as `v`. `repaired` (as long as `v`, or empty if it would hold zeros only)
    counts the values whose clock was not set when they were taken. `gaps_ms` are the spans without a value.
    """

    name: str
    unit: str
    t_ms: Sequence[int]
    v: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    last: Sequence[float] = ()
    count: Sequence[int] = ()
    repaired: Sequence[int] = ()
    gaps_ms: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an export: a channel's readings or means (`figure` ""), or the min, max, last or count of steps."""

    name: str
    unit: str
    figure: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One time (or start of a step) and a cell for each column; `repaired` as in `Series`, over all cells.

    Among steps, a row without any value stands where a gap begins.
    """

    time_ms: int
    values: tuple[float | None, ...]
    repaired: int


@dataclass(frozen=True, slots=True)
class Table:
    """A whole period: the columns, known beforehand, and pages of rows in the order of time."""

    columns: Sequence[Column]
    pages: AsyncIterator[list[TableRow]]


@dataclass(frozen=True, slots=True)
class SamplesPage:
    """Series of one truck and, when there is more, the time (Unix ms) from which to ask next."""

    series: Sequence[Series]
    next_ms: int | None


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
    with the next step when that cannot be done yet. `freshness_key` is the gateway's public Ed25519 key (32 bytes),
    which a root must name. Without `sign_in` only tokens are taken.
    """

    now_ms: Callable[[], int]
    make_code: Callable[[str, bytes], str]
    accept_document: AcceptDocument
    telemetry: TelemetrySource
    freshness_key: bytes
    sign_in: SignIn | None = None
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

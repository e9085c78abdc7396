"""What the gateway's HTTP API answers, as a client reads it: one immutable struct a body.

Fields that a newer gateway adds are skipped, so that an older command keeps working; the tests compare every struct
here with what `gateway.api` declares. Times are Unix milliseconds (`_ms`) or seconds (`_s`), digests are hex.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Problem(Struct, frozen=True, rename={"kind": "type"}):
    """A refusal (RFC 9457). `offset` tells an upload where to go on."""

    title: str = ""
    status: int = 0
    detail: str = ""
    kind: str = "about:blank"
    instance: str = ""
    offset: int | None = None


class Truck(Struct, frozen=True):
    """One truck in a listing. `up_to_date` is None until it has a desired state."""

    truck: str
    group: str
    enrolled_ms: int
    revoked_ms: int | None
    last_heard_ms: int | None
    last_link: str | None
    up_to_date: bool | None


class TruckPage(Struct, frozen=True):
    """A page of trucks."""

    items: list[Truck]
    next: str | None


class Holding(Struct, frozen=True):
    """What a truck's newest receipt says of one document."""

    document: str
    name: str
    version: int
    digest: str
    outcome: str
    reason: str
    time_ms: int
    received_ms: int


class TruckDetail(Truck, frozen=True):
    """One truck in full; `status` is what it reported of itself."""

    signing_key: str
    last_address: str | None
    desired: str | None
    desired_reported: str | None
    status: dict[str, Any] | None
    status_ms: int | None
    holdings: list[Holding]


class EnrolmentCode(Struct, frozen=True):
    """A one-time code, seen this once."""

    truck: str
    group: str
    code: str
    expires_ms: int
    replaces: bool


class Series(Struct, frozen=True):
    """One channel (SenML: `n` name, `u` unit, `v` values); `min` and the like are there for steps only."""

    n: str
    u: str
    t_ms: list[int]
    v: list[float]
    min: list[float] = []
    max: list[float] = []
    last: list[float] = []
    count: list[int] = []
    repaired: list[int] = []
    gaps_ms: list[tuple[int, int]] = []


class Samples(Struct, frozen=True):
    """A truck's telemetry of a period; `next` is given when there is more."""

    truck: str
    since_ms: int
    until_ms: int
    step_s: int
    series: list[Series]
    repaired: int
    next: str | None


class Event(Struct, frozen=True):
    """One event. `time_ms` is None while its boot's clock is not known; then `boot_ms` counts from the boot.

    `repaired`: the clock became known after the event.
    """

    id: int
    name: str
    time_ms: int | None
    boot_ms: int | None
    repaired: bool
    precedence: str
    values: dict[str, Any]
    received_ms: int
    epoch: str
    sequence: int


class EventPage(Struct, frozen=True):
    """A page of events."""

    items: list[Event]
    next: str | None


class Receipt(Struct, frozen=True):
    """What a truck did with one document, as it signed it."""

    id: int
    document: str
    name: str
    version: int
    digest: str
    outcome: str
    reason: str
    time_ms: int
    received_ms: int
    epoch: str
    sequence: int


class ReceiptPage(Struct, frozen=True):
    """A page of receipts."""

    items: list[Receipt]
    next: str | None


class Epoch(Struct, frozen=True):
    """One epoch of a truck's queue: sequences that are missing, and those that it dropped by policy, with why."""

    epoch: str
    started_ms: int
    last_ms: int
    highest: int
    missing: list[tuple[int, int]]
    dropped: list[tuple[int, int, str]]
    dropped_rows: int


class ChannelCoverage(Struct, frozen=True):
    """One channel: for each step the values at the gateway and those due; `repaired` had their clock set later."""

    n: str
    u: str
    count: list[int]
    due: list[int]
    repaired: list[int] = []


class RepairedBoot(Struct, frozen=True):
    """Batches taken while a boot's clock was not set."""

    boot: str
    offset_ms: int
    batches: int
    rows: int
    first_ms: int
    last_ms: int


class Coverage(Struct, frozen=True):
    """How much of a period is at the gateway; `channels` count by the steps that begin at `starts_ms`."""

    truck: str
    since_ms: int
    until_ms: int
    batches: int
    rows: int
    first_ms: int | None
    last_ms: int | None
    parked: int
    timeless: int
    rejected: int
    to_roll_up: int
    repaired_rows: int
    repaired: list[RepairedBoot]
    step_s: int
    starts_ms: list[int]
    channels: list[ChannelCoverage]
    epochs: list[Epoch]


class LedgerLine(Struct, frozen=True):
    """Bytes of one truck, link, precedence, cause and direction; None where lines are not told apart by that."""

    truck: str | None
    link: str | None
    precedence: str | None
    cause: str | None
    direction: str | None
    bytes: int
    datagrams: int
    billed_bytes: int
    money_milli: int | None
    currency: str | None
    start_ms: int | None


class LedgerPage(Struct, frozen=True):
    """A page of the ledger; `total_bytes` is of the whole period."""

    since_ms: int
    until_ms: int
    total_bytes: int
    items: list[LedgerLine]
    next: str | None


class DocumentRow(Struct, frozen=True):
    """A signed document without its bytes; `name` is the stream in which its versions count."""

    digest: str
    kind: str
    version: int
    name: str
    bundle: str | None
    group: str | None
    trucks: list[str]
    issued_s: int
    expires_s: int
    size: int
    received_ms: int
    put_by: str


class DocumentPage(Struct, frozen=True):
    """A page of documents."""

    items: list[DocumentRow]
    next: str | None


class OwnKey(Struct, frozen=True):
    """One public key of the gateway's own: kind `freshness` (Ed25519) or `exchange` (P-256), its number, hex."""

    kind: str
    number: int
    public: str


class Trust(Struct, frozen=True):
    """The freshness key that the gateway signs with, its newest root and delegation, its keys, and what is wrong."""

    freshness_key: str
    root: DocumentRow | None
    delegation: DocumentRow | None
    keys: list[OwnKey]
    warnings: list[str]
    to_sign_again: list[DocumentRow]


class CollectorSetting(Struct, frozen=True):
    """One collector of a configuration."""

    name: str
    period_s: int


class LinkSetting(Struct, frozen=True):
    """One link of a configuration."""

    name: str
    month_bytes_max: int | None
    reserve_bytes: int
    price_per_mb_milli: int
    currency: str


class TruckConfig(Struct, frozen=True):
    """The newest configuration for a truck, and what the truck's receipt says of it."""

    document: DocumentRow
    batch_age_s: int | None
    collectors: list[CollectorSetting]
    links: list[LinkSetting]
    confirm_within_s: int | None
    extra: dict[str, int | bool | str]
    outcome: str | None
    reason: str


class SignInLink(Struct, frozen=True):
    """The path of a page that signs one browser in, once."""

    path: str
    expires_ms: int


class NewToken(Struct, frozen=True):
    """A token's text, seen this once."""

    name: str
    role: str
    token: str
    expires_ms: int | None


class AuditEntry(Struct, frozen=True):
    """One entry of the audit log; `hash` covers `previous` and the rest (`store.fleet.auditchain`)."""

    id: int
    at_ms: int
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    detail_json: str
    previous: str
    hash: str


class AuditPage(Struct, frozen=True):
    """A page of the audit log, newest first."""

    items: list[AuditEntry]
    next: str | None


class AuditCheck(Struct, frozen=True):
    """What the gateway says of its own chain: `broken_at` is the first entry that does not hold."""

    rows: int
    head: str
    broken_at: int | None


class Change(Struct, frozen=True):
    """One live change: its kind, and what to read again. `id` goes on where a stream broke off."""

    kind: str
    truck: str | None
    subject: str
    at_ms: int
    id: int = 0

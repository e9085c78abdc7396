"""What the fleet store hands out and takes in, as frozen records: trucks, enrolments, contexts, documents and the like.

Parcels and telemetry are in `store.fleet.evidence`. Times are Unix milliseconds unless a name says otherwise; digests
are 32 bytes of SHA-256; `*_json` is JSON text that the store keeps but does not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from protocol.numbers import DocumentKind, Outcome, Precedence


@dataclass(frozen=True, slots=True)
class TruckRecord:
    """One enrolled truck. `desired_reported` is the desired state that its newest receipt of one names."""

    name: str
    group: str
    signing_key: bytes
    credential: bytes
    kid_cred: bytes
    enrolled_ms: int
    revoked_ms: int | None = None
    last_heard_ms: int | None = None
    last_link: str | None = None
    last_address: str | None = None
    desired_digest: bytes | None = None
    desired_reported: bytes | None = None
    status_json: str | None = None
    status_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TruckKeyRecord:
    """A signing key that a truck has or had; evidence received within [since_ms, until_ms) verifies under it."""

    truck: str
    signing_key: bytes
    credential: bytes
    since_ms: int
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class HoldingRecord:
    """What a truck last said, in a signed receipt, about one document stream (kind and name)."""

    truck: str
    document: DocumentKind
    name: str
    digest: bytes
    outcome: Outcome
    version: int
    reason: str
    time_ms: int
    received_ms: int


@dataclass(frozen=True, slots=True)
class EnrolmentRecord:
    """A one-time code: only the SHA-256 of its secret is kept."""

    id: int
    truck: str
    group: str
    expires_ms: int
    created_ms: int
    created_by: str
    redeemed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """One OSCORE context: `kid` is the gateway's recipient id, which the truck sends, `peer_id` its sender id."""

    kid: bytes
    peer_id: bytes
    truck: str
    link: str
    master_secret: bytes = field(repr=False)
    master_salt: bytes = field(repr=False)
    sender_sequence_reserved: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class DocumentSummary:
    """A signed document without its bytes, `size` of them.

    `name` is `protocol.trust.version_name`; `group` or `trucks` say whom it is for, `bundle` as in `DocumentRecord`.
    """

    digest: bytes
    kind: DocumentKind
    version: int
    name: str
    bundle: str | None
    group: str | None
    trucks: tuple[str, ...]
    issued_s: int
    expires_s: int
    size: int
    received_ms: int
    put_by: str


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A signed document. `bundle` names the bundle of a manifest or rollout; of the rest it is None."""

    digest: bytes
    kind: DocumentKind
    version: int
    name: str
    signed: bytes
    received_ms: int
    put_by: str
    bundle: str | None = None
    group: str | None = None
    trucks: tuple[str, ...] = ()
    issued_s: int = 0
    expires_s: int = 0


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """One version of a content bundle, as its manifest (a document of digest `manifest`) describes it."""

    name: str
    label: str
    version: int
    manifest: bytes
    content: str
    title: str
    files: int
    size: int
    received_ms: int
    put_by: str


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """A file that the blob folder holds in full."""

    digest: bytes
    size: int
    received_ms: int
    put_by: str


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """A blob on its way in: `received` of `size` bytes are on the disk."""

    digest: bytes
    size: int
    received: int
    started_ms: int
    updated_ms: int
    put_by: str


@dataclass(frozen=True, slots=True)
class DesiredRecord:
    """The gateway-signed desired state of one truck."""

    truck: str
    digest: bytes
    signed: bytes
    set_ms: int


class Direction(StrEnum):
    """Which way bytes went, seen from the truck."""

    UP = "up"
    DOWN = "down"


class LedgerSource(StrEnum):
    """Who counted."""

    GATEWAY = "gateway"
    TRUCK = "truck"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Bytes on a link at `at_ms`; the ledger adds them up by the hour (UTC). `truck` may be "" for strangers' bytes.

    `billed_bytes` are those that the provider counts, money is in billionths of `currency`; None and "" if not known.
    """

    truck: str
    link: str
    precedence: Precedence
    cause: str
    direction: Direction
    at_ms: int
    bytes: int
    datagrams: int
    billed_bytes: int | None = None  # None: as many as were carried
    money_nano: int | None = None
    currency: str = ""


@dataclass(frozen=True, slots=True)
class LedgerSum:
    """Totals of one line of the ledger from `start_ms` for one step (None: for the whole period asked for)."""

    truck: str
    link: str
    precedence: Precedence
    cause: str
    direction: Direction
    currency: str
    bytes: int
    datagrams: int
    billed_bytes: int
    money_nano: int | None
    start_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DayUse:
    """What a link carried in a day or another span, both ways; `nano` is the money that is known of it."""

    bytes: int = 0
    datagrams: int = 0
    billed: int = 0
    nano: int = 0


@dataclass(frozen=True, slots=True)
class Contacts:
    """In how many hours a link carried anything, and the bytes of content that came down in the best of them."""

    hours: int
    best_hour_bytes: int


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A bearer token of the HTTP API, known by its SHA-256 and its unique name."""

    token_sha256: bytes
    name: str
    role: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def usable(self, now_ms: int) -> bool:
        """Return whether the token is neither revoked nor expired."""
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


@dataclass(frozen=True, slots=True)
class StickRecord:
    """A courier's stick: its id, its signed `Stick`, and the content key if it is sealed."""

    stick: bytes
    made_ms: int
    made_by: str
    expires_ms: int
    signed: bytes = field(repr=False)
    key: bytes | None = field(default=None, repr=False)
    revoked_ms: int | None = None
    imported_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AuditNote:
    """Who did what to what: an entry of the audit log before it has its place in the chain."""

    actor: str
    action: str
    subject: str
    at_ms: int
    detail_json: str = "{}"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One link of the audit chain: `hash` covers `previous` (the hash of the row before) and all the rest."""

    id: int
    at_ms: int
    actor: str
    action: str
    subject: str
    detail_json: str
    previous: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """The audit chain was walked: `broken_at` is the id of the first row that does not hold, None if all do.

    A chain cannot show that its tail was cut off: compare `rows` and `head` with what was noted elsewhere.
    """

    rows: int
    head: bytes
    broken_at: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """Something committed that an operator may want to see. `kind` is one of `store.fleet.changes.KINDS`."""

    id: int
    kind: str
    truck: str | None
    subject: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """Counts for metrics and a dashboard."""

    trucks: int
    revoked: int
    parked: int
    timeless: int
    to_roll_up: int
    quarantined: int
    newest_change: int


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """Everything that carries a hash was read and hashed again; `damaged` names (at most 100 of) what did not match."""

    parcels: int
    documents: int
    schemas: int
    damaged: tuple[str, ...]
    database_check: str

    @property
    def sound(self) -> bool:
        """Return whether nothing is damaged."""
        return not self.damaged and self.database_check == "ok"

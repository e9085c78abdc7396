"""Documents: the signed things that come down (root, delegation, config, manifest, rollout, desired, stick).

A document is a COSE_Sign1 (one signer) or a COSE_Sign (a threshold) over a deterministic CBOR map. What it is, its
version, whom it is for and how long it is valid are inside the signed bytes, and the context string of its kind is in
the external_aad. It is named by the SHA-256 of its signed bytes. This module reads and writes; `protocol.trust`
decides.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeVar

from msgspec import Meta, field

from protocol import cbor, cose
from protocol.errors import MalformedError
from protocol.numbers import (
    BUNDLE_BYTES_MAX,
    BUNDLE_FILES_MAX,
    CONFIG_BYTES_MAX,
    CONTEXT_DOCUMENT,
    DELEGATION_BYTES_MAX,
    DESIRED_BYTES_MAX,
    DOCUMENT_BYTES_MAX,
    DOCUMENT_ITEMS_MAX,
    EXCHANGE_KEYS,
    HELD_MANIFESTS_MAX,
    LINKS_MAX,
    PATH_CHARS_MAX,
    RANGES_IN_ACK_MAX,
    ROLLOUT_BYTES_MAX,
    ROOT_BYTES_MAX,
    STICK_BYTES_MAX,
    STICK_EPOCHS_MAX,
    STICK_ID_BYTES,
    STICK_PACKS_MAX,
    STICK_TRUCKS_MAX,
    STICK_WRAPPED_BYTES_MAX,
    STICKS_REVOKED_MAX,
    DocumentKind,
    Precedence,
)
from protocol.paths import check_paths
from protocol.tariffs import Budget, Pool, Power, Tariff, Timetable
from protocol.wire import Digest, Epoch, Name, PublicKey, Sequence, Text, Uint, WireArray, WireMap, convert

BUNDLE_KINDS = ("static", "files", "zim", "kolibri")
StickId = Annotated[bytes, Meta(min_length=STICK_ID_BYTES, max_length=STICK_ID_BYTES)]


class Document(WireMap, frozen=True):
    """What every document says of itself; subclasses add what their kind says. Times are Unix seconds."""

    kind: ClassVar[DocumentKind]
    base_labels: ClassVar = {"document": 1, "version": 2, "issued_s": 3, "expires_s": 4}
    document: DocumentKind
    version: Annotated[int, Meta(ge=1, le=1 << 53)]
    issued_s: Uint
    expires_s: Uint


class RoleKeys(WireArray, frozen=True):
    """The keys of one role and how many distinct ones of them must sign."""

    threshold: Annotated[int, Meta(ge=1, le=16)]
    keys: Annotated[tuple[PublicKey, ...], Meta(min_length=1, max_length=16)]


class ExchangeKey(WireArray, frozen=True):
    """One EDHOC key of the gateway: its number, and the x coordinate of its P-256 public key (32 bytes)."""

    number: Annotated[int, Meta(ge=0, le=EXCHANGE_KEYS - 1)]
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Root(Document, frozen=True):
    """The anchor of trust: the root role's own keys, each new version signed by the old and the new threshold.

    `exchange` are the EDHOC keys that trucks believe of a gateway, in the order in which they try them. None: the one
    that came with the enrolment code.
    """

    kind: ClassVar = DocumentKind.ROOT
    labels: ClassVar = Document.base_labels | {"root": 10, "gateway": 11, "exchange": 12}
    root: RoleKeys
    gateway: RoleKeys
    exchange: Annotated[tuple[ExchangeKey, ...], Meta(max_length=4)] = ()


class PublisherRole(WireArray, frozen=True):
    """Who may sign manifests of bundles whose name begins with `prefix` (empty: all)."""

    prefix: Annotated[str, Meta(pattern=r"^[a-z0-9-]{0,31}\Z")]
    role: RoleKeys


class OperatorRole(WireArray, frozen=True):
    """Who may sign configuration and rollouts for the trucks of `group` ("*": all)."""

    group: Annotated[str, Meta(pattern=r"^(\*|[a-z0-9][a-z0-9-]{0,30})\Z")]
    role: RoleKeys


class Delegation(Document, frozen=True):
    """The role table below the root, signed by the root role's threshold."""

    kind: ClassVar = DocumentKind.DELEGATION
    labels: ClassVar = Document.base_labels | {"publishers": 10, "operators": 11, "revoked": 12}
    publishers: Annotated[tuple[PublisherRole, ...], Meta(max_length=64)] = ()
    operators: Annotated[tuple[OperatorRole, ...], Meta(max_length=64)] = ()
    revoked: Annotated[tuple[Name, ...], Meta(max_length=10_000)] = ()


class Addressee(WireArray, frozen=True):
    """Whom a document is for: trucks by name, or one group. Exactly one of the two is set."""

    trucks: Annotated[tuple[Name, ...], Meta(max_length=1_000)] = ()
    group: Name | None = None

    def __post_init__(self) -> None:
        if bool(self.trucks) == (self.group is not None):
            raise ValueError("a document is for trucks by name or for one group")

    def includes(self, truck: str, group: str) -> bool:
        """Return whether a truck of this name and group is meant."""
        return truck in self.trucks or (self.group is not None and self.group == group)


class CollectorConfig(WireArray, frozen=True):
    """Settings of one collector: its name on the truck, and its period (s); 0 switches it off."""

    name: Name
    period_s: Annotated[int, Meta(ge=0, le=86_400)]


class LinkConfig(WireArray, frozen=True):
    """The simple budget of one link: bytes in a calendar month (UTC), None for no cap; flash may use all of it.

    `reserve_bytes` of it are kept for FLASH alone. `price_per_mb_milli` is thousandths of `currency` a million bytes;
    0 keeps the truck's own price and currency.
    """

    name: Name
    month_bytes_max: Uint | None
    reserve_bytes: Uint = 0
    price_per_mb_milli: Uint = 0
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")] = "USD"


class Config(Document, frozen=True):
    """A truck's configuration, signed by an operator; what is left out keeps the truck's local setting.

    `links` is what every truck understands; of a link that also has a tariff or a budget, one that understands those
    goes by them alone.
    """

    kind: ClassVar = DocumentKind.CONFIG
    labels: ClassVar = Document.base_labels | {
        "addressee": 10,
        "batch_age_s": 11,
        "collectors": 12,
        "links": 13,
        "confirm_within_s": 14,
        "extra": 15,
        "tariffs": 16,
        "budgets": 17,
        "pools": 18,
        "power": 19,
        "timetable": 20,
    }
    addressee: Addressee
    batch_age_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] | None = None
    collectors: Annotated[tuple[CollectorConfig, ...], Meta(max_length=64)] = ()
    links: Annotated[tuple[LinkConfig, ...], Meta(max_length=16)] = ()
    confirm_within_s: Annotated[int, Meta(ge=60, le=7 * 86_400)] | None = None
    extra: Annotated[dict[Annotated[str, Meta(max_length=64)], int | bool | Text], Meta(max_length=256)] = field(
        default_factory=dict
    )
    tariffs: Annotated[tuple[Tariff, ...], Meta(max_length=LINKS_MAX)] = ()
    budgets: Annotated[tuple[Budget, ...], Meta(max_length=LINKS_MAX)] = ()
    pools: Annotated[tuple[Pool, ...], Meta(max_length=LINKS_MAX)] = ()
    power: Power | None = None
    timetable: Timetable | None = None


class ManifestFile(WireArray, frozen=True):
    """One regular file of a bundle: its path below the bundle's folder, its size in bytes and its SHA-256."""

    path: Annotated[str, Meta(min_length=1, max_length=PATH_CHARS_MAX)]
    size: Annotated[int, Meta(ge=0, le=BUNDLE_BYTES_MAX)]
    digest: Digest


class Manifest(Document, frozen=True):
    """The signed list of a bundle's files, in ascending order of their paths."""

    kind: ClassVar = DocumentKind.MANIFEST
    labels: ClassVar = Document.base_labels | {"name": 10, "label": 11, "content": 12, "files": 13, "title": 14}
    name: Name
    label: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,30}\Z")]
    content: Annotated[str, Meta(pattern=r"^(static|files|zim|kolibri)\Z")]
    files: Annotated[tuple[ManifestFile, ...], Meta(min_length=1, max_length=BUNDLE_FILES_MAX)]
    title: Text = ""

    def __post_init__(self) -> None:
        check_paths([file.path for file in self.files])
        if sum(file.size for file in self.files) > BUNDLE_BYTES_MAX:
            raise ValueError("the bundle is larger than a truck may be asked to hold")


class Rollout(Document, frozen=True):
    """Which trucks should have which version of a bundle, signed by an operator. A None digest takes it away.

    How it goes is for the gateway, which withholds: `stages` are the shares (percent) of the trucks in the stages
    before the last, which is all of them; a share of failures of `stop_at_percent` halts it, as does spending more than
    `cost_milli_max` (thousandths of `currency`); a truck that was not heard for `dark_after_s` is not waited for. The
    truck goes by `deadline_s` (Unix), see `precedence_at`.
    """

    kind: ClassVar = DocumentKind.ROLLOUT
    labels: ClassVar = Document.base_labels | {
        "addressee": 10,
        "bundle": 11,
        "manifest": 12,
        "precedence": 13,
        "stages": 14,
        "stop_at_percent": 15,
        "dark_after_s": 16,
        "deadline_s": 17,
        "cost_milli_max": 18,
        "currency": 19,
    }
    addressee: Addressee
    bundle: Name
    manifest: Digest | None = None
    precedence: Annotated[int, Meta(ge=0, le=3)] = 3
    stages: Annotated[tuple[Annotated[int, Meta(ge=1, le=99)], ...], Meta(max_length=16)] = ()
    stop_at_percent: Annotated[int, Meta(ge=1, le=100)] | None = None
    dark_after_s: Annotated[int, Meta(ge=60, le=365 * 86_400)] = 3 * 86_400
    deadline_s: Uint | None = None
    cost_milli_max: Uint | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")] = "USD"

    def precedence_at(self, now_s: int) -> int:
        """Return how urgent the download is now: NORMAL in the second half of the time to its deadline, then PRIORITY.

        From the last quarter on a dearer link carries it while the cheaper ones do not answer; budgets hold all the
        same. Without a deadline it never changes.
        """
        if self.deadline_s is None:
            return self.precedence
        left, whole = self.deadline_s - now_s, self.deadline_s - self.issued_s
        if 4 * left <= whole:
            return min(self.precedence, Precedence.PRIORITY)
        return min(self.precedence, Precedence.NORMAL) if 2 * left <= whole else self.precedence


class DesiredEntry(WireArray, frozen=True):
    """One document that a truck should have: its kind, version, digest and size in bytes."""

    document: DocumentKind
    version: Uint
    digest: Digest
    size: Annotated[int, Meta(ge=1, le=DOCUMENT_BYTES_MAX)]


class Desired(Document, frozen=True):
    """The gateway's freshness statement for one truck: these are the newest documents, as of `issued_s`.

    `revoked_sticks` are couriers' sticks that were lost: nothing is taken from them.
    """

    kind: ClassVar = DocumentKind.DESIRED
    labels: ClassVar = Document.base_labels | {"truck": 10, "entries": 11, "revoked_sticks": 12}
    truck: Name
    entries: Annotated[tuple[DesiredEntry, ...], Meta(max_length=1_024)] = ()
    revoked_sticks: Annotated[tuple[StickId, ...], Meta(max_length=STICKS_REVOKED_MAX)] = ()


class StickEpoch(WireArray, frozen=True):
    """What is committed of one epoch of a truck, as in an acknowledgement.

    `newest` is the highest sequence whose parcel is at the gateway, and the digest of that sealed parcel: a truck whose
    disk image was put back knows by it that others have these numbers.
    """

    epoch: Epoch
    cumulative: Uint
    ranges: Annotated[tuple[tuple[Sequence, Sequence], ...], Meta(max_length=RANGES_IN_ACK_MAX)] = ()
    newest: tuple[Sequence, Digest] | None = None


class StickTruck(WireArray, frozen=True):
    """What a stick brings one truck: its desired state, what the gateway has of it, and the key if it is sealed.

    `key` is the content key, encrypted to the truck (SPEC.md 9); empty for a stick that anybody may read.
    """

    truck: Name
    desired: Digest
    committed: Annotated[tuple[StickEpoch, ...], Meta(max_length=STICK_EPOCHS_MAX)] = ()
    key: Annotated[bytes, Meta(max_length=STICK_WRAPPED_BYTES_MAX)] = b""


class StickPack(WireArray, frozen=True):
    """A pack on a stick: whose files it makes of which held ones, and the digest of the list of its chunks' digests."""

    manifest: Digest
    held: Annotated[tuple[Digest, ...], Meta(max_length=HELD_MANIFESTS_MAX)]
    pack: Digest
    size: Uint
    leaves: Digest


class Stick(Document, frozen=True):
    """What a courier's stick is, signed by the gateway: its id, and whom it is for."""

    kind: ClassVar = DocumentKind.STICK
    labels: ClassVar = Document.base_labels | {"stick": 10, "trucks": 11, "packs": 12}
    stick: StickId
    trucks: Annotated[tuple[StickTruck, ...], Meta(min_length=1, max_length=STICK_TRUCKS_MAX)]
    packs: Annotated[tuple[StickPack, ...], Meta(max_length=STICK_PACKS_MAX)] = ()


# Payload and signatures; `protocol.numbers` says why each kind has its own.
BYTES_MAX: dict[DocumentKind, int] = {
    DocumentKind.ROOT: ROOT_BYTES_MAX,
    DocumentKind.DELEGATION: DELEGATION_BYTES_MAX,
    DocumentKind.CONFIG: CONFIG_BYTES_MAX,
    DocumentKind.MANIFEST: DOCUMENT_BYTES_MAX,
    DocumentKind.ROLLOUT: ROLLOUT_BYTES_MAX,
    DocumentKind.DESIRED: DESIRED_BYTES_MAX,
    DocumentKind.STICK: STICK_BYTES_MAX,
}
_KINDS: dict[DocumentKind, type[Document]] = {
    each.kind: each for each in (Root, Delegation, Config, Manifest, Rollout, Desired, Stick)
}
D = TypeVar("D", bound=Document)


def document_aad(kind: DocumentKind) -> bytes:
    """Return the external_aad under which documents of this kind are signed."""
    return cbor.encode([CONTEXT_DOCUMENT, int(kind)])


def sign_document(document: Document, keys: list[cose.SigningKey]) -> bytes:
    """Return the signed bytes: a COSE_Sign1 for one key, a COSE_Sign for several. A root is always a COSE_Sign."""
    aad = document_aad(document.kind)
    if len(keys) == 1 and document.kind not in (DocumentKind.ROOT, DocumentKind.DELEGATION):
        return cose.sign1(keys[0], document.encode(), aad)
    return cose.sign(keys, document.encode(), aad)


def read_document(payload: bytes) -> Document:
    """Return the document in a signed payload, by the kind that it names; raise `MalformedError`."""
    fields = cbor.decode(payload, bytes_max=DOCUMENT_BYTES_MAX, items_max=DOCUMENT_ITEMS_MAX)
    if not isinstance(fields, dict):
        raise MalformedError("a document is a map")
    kind = convert(fields.get(1), DocumentKind)
    if len(payload) > BYTES_MAX[kind]:
        raise MalformedError(f"a {kind.name.lower()} has at most {BYTES_MAX[kind]} bytes")
    return _KINDS[kind].from_fields(fields)


def parse_document(signed: bytes, kind: type[D]) -> tuple[D, cose.Signed]:
    """Return a signed document of the wanted kind and its signatures, NOT yet verified; raise `MalformedError`."""
    parts = cose.parse(signed)
    document = read_document(parts.payload)
    if not isinstance(document, kind):
        raise MalformedError(f"a {kind.__name__.lower()} was wanted, not a {type(document).__name__.lower()}")
    return document, parts

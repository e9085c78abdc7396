"""Trust decisions: which signed document is believed, by whom, for whom, and never an older one (TUF 5.3 to 5.7).

`TrustedSet` decides and does no I/O: signed bytes and an instant in, a valid document out, or an error that says which
check failed. It starts from a root that was pinned at enrolment. State changes only after every check has passed; the
caller persists `highest` afterwards, in the same transaction as the document. `now_s` is a lower bound of the true time
(the persisted floor while the clock is not synced), so a clock that runs behind can only accept what it accepted
before, and one that jumped ahead is bounded by the caller's floor rules.

Departures from TUF, with reasons: one role table below the root (the delegation) instead of a tree, because a truck
pays for every document; the timestamp and snapshot roles are one gateway-signed `Desired` for each truck (Uptane's
director), which names digests and can withhold but never forge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from protocol import cose
from protocol.documents import (
    Config,
    D,
    Delegation,
    Desired,
    Document,
    Manifest,
    RoleKeys,
    Rollout,
    Root,
    Stick,
    StickTruck,
    document_aad,
    parse_document,
)
from protocol.errors import ExpiredError, RollbackError, SignatureError, UntrustedError
from protocol.numbers import VERSION_FREE_MAX, VERSION_STEP_MAX, DocumentKind


@dataclass(frozen=True, slots=True)
class Trusted:
    """The highest version of one document that was trusted, and the digest it had."""

    version: int
    digest: bytes


HighestKey = tuple[DocumentKind, str]


class TrustedSet:
    """What one truck (or a gateway, with `truck` None) believes now."""

    def __init__(
        self,
        root_signed: bytes,
        *,
        truck: str | None = None,
        group: str = "",
        highest: Mapping[HighestKey, Trusted] | None = None,
    ) -> None:
        """Start from a root whose digest was pinned or that was trusted before; raise `SignatureError`."""
        root, parts = parse_document(root_signed, Root)
        _check_threshold(parts, [root.root], DocumentKind.ROOT)
        self.truck = truck
        self.group = group
        self.root = root
        self.delegation: Delegation | None = None
        self._delegation_signed = b""
        self._highest: dict[HighestKey, Trusted] = dict(highest or {})
        self._note(root, root_signed, "")

    @property
    def highest(self) -> Mapping[HighestKey, Trusted]:
        """The highest trusted versions, to be persisted."""
        return dict(self._highest)

    def check_root(self, signed: bytes) -> Root:
        """Check the next root: one version higher, signed by the old and the new threshold (TUF 5.3.4-5.3.5)."""
        root, parts = parse_document(signed, Root)
        if root.version != self.root.version + 1:
            raise RollbackError(f"root version {root.version} does not follow version {self.root.version}")
        _check_threshold(parts, [self.root.root], DocumentKind.ROOT)
        _check_threshold(parts, [root.root], DocumentKind.ROOT)
        return root

    def update_root(self, signed: bytes) -> Root:
        """Accept the next root, and forget what hung on keys that it takes away."""
        root = self.check_root(signed)
        if root.gateway != self.root.gateway:
            # Fast-forward recovery: new gateway keys make the versions that stolen ones reached void (TUF 5.3.11).
            self._highest = {key: seen for key, seen in self._highest.items() if key[0] != DocumentKind.DESIRED}
        self.root = root
        self._note(root, signed, "")
        if self.delegation is not None and not self._is_delegated(self._delegation_signed):
            # The role table of root keys that are gone ends with them, also before the next one is here.
            self.delegation = None
        return root

    def _is_delegated(self, signed: bytes) -> bool:
        try:
            _check_threshold(cose.parse(signed), [self.root.root], DocumentKind.DELEGATION)
        except SignatureError:
            return False
        return True

    def accept_delegation(self, signed: bytes, now_s: int) -> Delegation:
        """Accept a role table signed by the root's threshold."""
        document, parts = parse_document(signed, Delegation)
        _check_threshold(parts, [self.root.root], DocumentKind.DELEGATION)
        self._check_version(document, signed, "")
        _check_expiry(self.root, now_s)
        _check_expiry(document, now_s)
        self.delegation, self._delegation_signed = document, signed
        self._note(document, signed, "")
        return document

    def accept_desired(self, signed: bytes, now_s: int) -> Desired:
        """Accept a gateway's freshness statement for this truck."""
        document, parts = parse_document(signed, Desired)
        _check_threshold(parts, [self.root.gateway], DocumentKind.DESIRED)
        if self.truck is not None and document.truck != self.truck:
            raise UntrustedError(f"this desired state is for {document.truck}")
        self._check_version(document, signed, document.truck)
        _check_expiry(document, now_s)
        self._note(document, signed, document.truck)
        return document

    def check_stick(self, signed: bytes, now_s: int) -> tuple[Stick, StickTruck]:
        """Check a courier's stick: signed by the gateway, not expired, for this truck. Nothing is remembered of it.

        A stick is a way and no news: what it brings is checked as if it came over a link, so an old one does no harm.
        """
        document, parts = parse_document(signed, Stick)
        _check_threshold(parts, [self.root.gateway], DocumentKind.STICK)
        mine = next((each for each in document.trucks if each.truck == self.truck), None)
        if mine is None:
            raise UntrustedError(f"this stick is for {', '.join(each.truck for each in document.trucks[:5])}")
        _check_expiry(document, now_s)
        return document, mine

    def accept_config(self, signed: bytes, now_s: int) -> Config:
        """Accept a configuration by an operator of the addressed trucks' group."""
        document, parts = parse_document(signed, Config)
        self._check_operator(parts, document, self._roles(now_s))
        return self._finish(document, signed, _addressee_name(document), now_s)

    def accept_rollout(self, signed: bytes, now_s: int) -> Rollout:
        """Accept a rollout by an operator of the addressed trucks' group."""
        document, parts = parse_document(signed, Rollout)
        self._check_operator(parts, document, self._roles(now_s))
        return self._finish(document, signed, f"{document.bundle}@{_addressee_name(document)}", now_s)

    def accept_manifest(self, signed: bytes, now_s: int, *, named: bytes | None = None) -> Manifest:
        """Accept a manifest by a publisher whose prefix the bundle's name has.

        A truck passes as `named` the digest in the rollout that it trusts. The rollout's version protects against
        rollback: an operator may deliberately send a fleet back to an older manifest, so its own version does not.
        """
        if named is not None and cose.digest(signed) != named:
            raise UntrustedError("this is not the manifest that the rollout names")
        document, parts = parse_document(signed, Manifest)
        self._check_publisher(parts, document, self._roles(now_s))
        _check_expiry(document, now_s)
        return document

    def accept(self, signed: bytes, kind: DocumentKind, now_s: int) -> Document:
        """Accept a document of any kind but the first root; raise `PeerError` of the check that failed."""
        match kind:
            case DocumentKind.ROOT:
                return self.update_root(signed)
            case DocumentKind.DELEGATION:
                return self.accept_delegation(signed, now_s)
            case DocumentKind.DESIRED:
                return self.accept_desired(signed, now_s)
            case DocumentKind.CONFIG:
                return self.accept_config(signed, now_s)
            case DocumentKind.ROLLOUT:
                return self.accept_rollout(signed, now_s)
            case DocumentKind.MANIFEST:
                return self.accept_manifest(signed, now_s)
            case DocumentKind.STICK:
                return self.check_stick(signed, now_s)[0]

    def of_truck(self, truck: str, group: str) -> TrustedSet:
        """Return a set with this one's root and role table, as a truck has it; nothing else is in it."""
        other = copy(self)
        other.truck, other.group = truck, group
        other._highest = {}
        return other

    def check_signers(self, signed: bytes, kind: DocumentKind) -> None:
        """Check who signed a config, rollout or manifest that was trusted before; raise `PeerError`.

        Versions and expiry are not looked at: what is applied stays when it expires. But what only a revoked key
        signed must not be begun any more. Without a role table nothing can be said, so nothing is refused.
        """
        if self.delegation is None:
            return
        if kind is DocumentKind.MANIFEST:
            manifest, parts = parse_document(signed, Manifest)
            self._check_publisher(parts, manifest, self.delegation)
        elif kind is DocumentKind.CONFIG:
            config, parts = parse_document(signed, Config)
            self._check_operator(parts, config, self.delegation)
        elif kind is DocumentKind.ROLLOUT:
            rollout, parts = parse_document(signed, Rollout)
            self._check_operator(parts, rollout, self.delegation)

    def _roles(self, now_s: int) -> Delegation:
        if self.delegation is None:
            raise UntrustedError("no delegation is trusted yet: nobody may sign configuration, rollouts or manifests")
        _check_expiry(self.delegation, now_s)
        return self.delegation

    def _check_publisher(self, parts: cose.Signed, document: Manifest, table: Delegation) -> None:
        roles = [each.role for each in table.publishers if document.name.startswith(each.prefix)]
        if not roles:
            raise UntrustedError(f"no publisher is delegated for bundles named {document.name}")
        _check_threshold(parts, roles, DocumentKind.MANIFEST)

    def _check_operator(self, parts: cose.Signed, document: Config | Rollout, table: Delegation) -> None:
        to = document.addressee
        if self.truck is not None and not to.includes(self.truck, self.group):
            raise UntrustedError(f"this {type(document).__name__.lower()} is for {_addressee_name(document)}")
        # On a truck the role must cover the truck's own group: an operator of another group cannot reach it by naming
        # it. A gateway (no truck) checks the addressed group, and trucks by name need an operator of all or of theirs.
        group = self.group if self.truck is not None else to.group
        roles = [each.role for each in table.operators if group is None or each.group in ("*", group)]
        if not roles:
            raise UntrustedError(f"no operator is delegated for group {group}")
        _check_threshold(parts, roles, document.kind)

    def _finish(self, document: D, signed: bytes, name: str, now_s: int) -> D:
        self._check_version(document, signed, name)
        _check_expiry(document, now_s)
        self._note(document, signed, name)
        return document

    def _check_version(self, document: Document, signed: bytes, name: str) -> None:
        seen = self._highest.get((document.kind, name))
        if document.kind is not DocumentKind.DESIRED:
            # Those of a desired state begin anew with a root; nothing gives used up versions of the others back.
            reached = max(VERSION_FREE_MAX, 0 if seen is None else seen.version)
            if document.version > reached + VERSION_STEP_MAX:
                raise UntrustedError(f"version {document.version} is too far above version {reached}")
        if seen is None:
            return
        if document.version < seen.version:
            raise RollbackError(f"version {document.version} is older than version {seen.version}, trusted before")
        if document.version == seen.version and cose.digest(signed) != seen.digest:
            raise RollbackError(f"another document of version {document.version} was trusted before")

    def _note(self, document: Document, signed: bytes, name: str) -> None:
        self._highest[(document.kind, name)] = Trusted(document.version, cose.digest(signed))


def version_name(document: Document) -> str:
    """Return the name under which a document's versions are counted (with its kind)."""
    match document:
        case Config():
            return _addressee_name(document)
        case Rollout():
            return f"{document.bundle}@{_addressee_name(document)}"
        case Manifest():
            return document.name
        case Desired():
            return document.truck
    return ""


def _addressee_name(document: Config | Rollout) -> str:
    to = document.addressee
    return f"group:{to.group}" if to.group is not None else ",".join(sorted(to.trucks))


def _check_threshold(parts: cose.Signed, roles: Sequence[RoleKeys], kind: DocumentKind) -> None:
    """Check that at least one of `roles` is satisfied by distinct public keys (never key ids)."""
    keys = {cose.key_id(key): key for role in roles for key in role.keys}
    signers = parts.verify(keys, document_aad(kind))
    best = max((len(signers.intersection(role.keys)) - role.threshold for role in roles), default=-1)
    if best < 0:
        raise SignatureError(f"{-best} more signature{'s' if best < -1 else ''} of this role needed")


def _check_expiry(document: Document, now_s: int) -> None:
    if document.expires_s <= now_s:
        raise ExpiredError(f"this {type(document).__name__.lower()} expired at {document.expires_s} (now {now_s})")

"""What this truck believes, read back from its database: the trusted set, what is wanted, and what has expired."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from edge.clock import Clock
from edge.identity import Enrolment
from protocol.documents import Config, D, Desired, Document, ExchangeKey, Rollout, parse_document
from protocol.errors import LocalError, PeerError
from protocol.numbers import DocumentKind
from protocol.trust import Trusted, TrustedSet
from store.documents import Documents, TrustedDocument

log = structlog.get_logger("edge.believed")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the trusted documents ask of this truck: a configuration (and its digest), rollouts, signed manifests."""

    config: tuple[bytes, Config] | None
    rollouts: tuple[Rollout, ...]
    manifests: dict[bytes, bytes]


def load_trust(documents: Documents, enrolment: Enrolment, clock: Clock) -> TrustedSet:
    """Return the trusted set as it was when the daemon stopped; raise `LocalError` when its root is gone."""
    root = documents.current(DocumentKind.ROOT)
    if root is None:
        raise LocalError("the trusted root is gone from the database: run `digitruck-edge join` with a new code")
    # From the versions, not the documents: one that was lost to a damaged disk must not come back in an older version.
    highest = {key: Trusted(*seen) for key, seen in documents.trusted_versions().items()}
    trust = TrustedSet(root.signed, truck=enrolment.truck, group=enrolment.group, highest=highest)
    delegation = documents.current(DocumentKind.DELEGATION)
    if delegation is not None:
        try:
            trust.accept_delegation(delegation.signed, clock.at_least_s())
        except PeerError as error:
            log.warning("delegation.unusable", reason=str(error))
    return trust


def exchange_keys(trust: TrustedSet, enrolment: Enrolment) -> tuple[ExchangeKey, ...]:
    """Return the EDHOC keys that are believed of a gateway, in the order in which they are tried."""
    return trust.root.exchange or (ExchangeKey(enrolment.key_number, enrolment.gateway_key),)


def read_wanted(documents: Documents, trust: TrustedSet) -> Wanted:
    """Return what the newest trusted desired state asks for, as far as its documents are held.

    Rollouts and manifests that only revoked keys signed are left out: what they began is not gone on with.
    """
    desired = documents.current(DocumentKind.DESIRED, trust.truck or "")
    entries = read_held(desired.signed, Desired).entries if desired is not None else ()
    held = [found for entry in entries if (found := documents.by_digest(entry.digest)) is not None]
    config = next((each for each in held if each.kind is DocumentKind.CONFIG), None)
    rollouts: dict[str, Rollout] = {}
    for each in held:
        newest = documents.current(each.kind, each.name) if each.kind is DocumentKind.ROLLOUT else None
        if newest is None or not _is_signed_still(newest, trust):
            continue
        rollout = read_held(newest.signed, Rollout)
        known = rollouts.get(rollout.bundle)
        # Two for one bundle would undo each other for ever: the one that was signed last holds.
        if known is None or (rollout.issued_s, rollout.version) > (known.issued_s, known.version):
            rollouts[rollout.bundle] = rollout
    manifests = [each for each in held if each.kind is DocumentKind.MANIFEST and _is_signed_still(each, trust)]
    return Wanted(
        _newest_config(documents, config),
        tuple(rollouts.values()),
        {each.digest: each.signed for each in manifests},
    )


def expired(documents: Documents, trust: TrustedSet, now_s: int) -> tuple[str, ...]:
    """Return which of the documents that all news hang on have expired: root, delegation, desired."""
    held = [
        documents.current(DocumentKind.ROOT),
        documents.current(DocumentKind.DELEGATION),
        documents.current(DocumentKind.DESIRED, trust.truck or ""),
    ]
    found = [each for each in held if each is not None]
    return tuple(each.kind.name.lower() for each in found if read_held(each.signed, Document).expires_s <= now_s)


def read_held(signed: bytes, kind: type[D]) -> D:
    """Return what a document says that was verified when it was stored, or is not believed yet."""
    return parse_document(signed, kind)[0]


def _is_signed_still(held: TrustedDocument, trust: TrustedSet) -> bool:
    try:
        trust.check_signers(held.signed, held.kind)
    except PeerError as error:
        log.info("document.no_longer_signed", kind=held.kind.name.lower(), name=held.name, reason=str(error))
        return False
    return True


def _newest_config(documents: Documents, named: TrustedDocument | None) -> tuple[bytes, Config] | None:
    """Return the newest version of the configuration that is named, or the one signed last while none is named."""
    names = documents.names(DocumentKind.CONFIG) if named is None else (named.name,)
    found = [held for name in names if (held := documents.current(DocumentKind.CONFIG, name)) is not None]
    configs = [(held.digest, read_held(held.signed, Config)) for held in found]
    return max(configs, key=lambda each: (each[1].issued_s, each[1].version), default=None)

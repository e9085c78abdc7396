"""What this machine believes of what the gateway hands out, by its own trust documents.

A gateway that lies must not get an operator to sign something: a configuration that is the base of the next, or a
manifest that a rollout names, is checked here as a truck would check it. Expiry is not: an expired one may be renewed.
"""

from __future__ import annotations

from gateway.cli.output import CommandError, note
from gateway.cli.trustsigning import trust_folder
from protocol import cose
from protocol.documents import Config, D, Manifest, Rollout, parse_document
from protocol.errors import PeerError
from protocol.trust import TrustedSet


def trusted_set() -> TrustedSet | None:
    """Return what the trust folder's documents add up to, None if there are none or they are unfinished."""
    folder = trust_folder()
    roots, delegations = folder.roots(), folder.delegations()
    if not roots or not delegations:
        return None
    try:
        trusted = TrustedSet(roots[0].signed)
        for root in roots[1:]:
            trusted.update_root(root.signed)
        # The times of the documents themselves stand for now: see the module's text on expiry.
        trusted.accept_delegation(delegations[-1].signed, 0)
    except PeerError as error:
        note(f"The trust documents here do not hold yet ({error}): nothing can be checked against them.")
        return None
    return trusted


def read_believed(signed: bytes, kind: type[D], digest: str) -> D:
    """Return a document that the gateway handed out under a digest; raise `CommandError` if it is not believed."""
    if cose.digest(signed).hex() != digest:
        raise CommandError("the gateway handed out other bytes than it named: do not sign anything from it")
    document, _ = parse_document(signed, kind)
    trusted = trusted_set()
    if trusted is None:
        note("No trust documents here, so its signature was not checked: digitruck trust fetch")
        return document
    try:
        match document:
            case Config():
                trusted.accept_config(signed, 0)
            case Rollout():
                trusted.accept_rollout(signed, 0)
            case Manifest():
                trusted.accept_manifest(signed, 0)
    except PeerError as error:
        raise CommandError(
            f"the gateway's {kind.__name__.lower()} is not believed ({error}): sign nothing on it"
        ) from error
    return document

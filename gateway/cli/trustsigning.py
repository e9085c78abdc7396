"""How a trust document comes to be signed: find it, explain it, check whose key counts, ask, sign, keep, say what next.

Shared by the commands of `digitruck trust`; nothing here talks to the gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway.cli.explain import explain, role_text
from gateway.cli.files import write_private
from gateway.cli.output import CommandError, confirm, note, print_json, say
from gateway.cli.session import data_folder, keystore
from gateway.cli.times import now_s
from gateway.cli.trustfiles import (
    SignedFile,
    Standing,
    TrustFolder,
    is_complete,
    open_signed,
    read_signed,
    roles_wanted,
    signers_of,
    with_signature,
)
from gateway.cli.truststeps import replaced
from protocol.documents import Delegation, Document, RoleKeys, Root, sign_document
from protocol.numbers import DocumentKind


def trust_folder() -> TrustFolder:
    """Return this person's trust documents."""
    return TrustFolder(data_folder() / "trust")


def find_document(file: Path) -> SignedFile:
    """Return a document by its path, or by its bare name in the trust folder."""
    kept = trust_folder().folder / file
    return read_signed(kept if not file.exists() and len(file.parts) == 1 and kept.exists() else file)


def current_root() -> Root:
    """Return the newest root here; raise `CommandError` if there is none or it lacks signatures."""
    roots = trust_folder().roots()
    if not roots:
        raise CommandError("there is no root here yet: digitruck trust init, or trust sign the root you were given")
    _refuse_unfinished(roots[-1])
    document = roots[-1].document
    assert isinstance(document, Root)
    return document


def next_delegation(valid_s: int) -> Delegation:
    """Return the newest delegation as the base of the next: one version higher, valid anew."""
    current_root()
    found = trust_folder().delegations()
    issued_s = now_s()
    if not found:
        return Delegation(document=DocumentKind.DELEGATION, version=1, issued_s=issued_s, expires_s=issued_s + valid_s)
    # One that an earlier root's keys finished is a base, too: their successors sign the next one.
    if not any(_is_finished_under(found[-1], root.document) for root in trust_folder().roots()):
        _refuse_unfinished(found[-1])
    document = found[-1].document
    assert isinstance(document, Delegation)
    return replaced(document, version=document.version + 1, issued_s=issued_s, expires_s=issued_s + valid_s)


def _is_finished_under(file: SignedFile, root: Document) -> bool:
    return isinstance(root, Root) and len(signers_of(file, root.root)) >= root.root.threshold


def _refuse_unfinished(file: SignedFile) -> None:
    if not is_complete(file.document, standings_of(file)):
        raise CommandError(f"{file.path} still lacks signatures: finish it with trust sign, or delete it to start over")


class Shown(msgspec.Struct, frozen=True):
    """One document as `--json` shows it: whether it is complete, and who of whom has signed."""

    file: str
    document: str
    version: int
    expires_s: int
    complete: bool
    signed: dict[str, str]
    changes: list[str]

    @classmethod
    def of(cls, file: SignedFile) -> Shown:
        """Return a file's document, as the trust documents here judge it."""
        found = standings_of(file)
        return cls(
            file=str(file.path),
            document=file.document.kind.name.lower(),
            version=file.document.version,
            expires_s=file.document.expires_s,
            complete=is_complete(file.document, found),
            signed={each.wanted_of: f"{len(each.signers)}/{each.role.threshold}" for each in found},
            changes=explained(file.document),
        )


def sign_new(documents: Sequence[Document], keys: Sequence[str], *, yes: bool, as_json: bool = False) -> None:
    """Explain, ask, sign and keep new documents; each is signed with those keys that count for it."""
    # With --json the explanation goes where questions go, so that the result can be piped.
    tell = note if as_json else say
    folder = trust_folder()
    signing = [keystore().load(each) for each in keys]
    new_root = next((each for each in documents if isinstance(each, Root)), None)
    made: list[SignedFile] = []
    used: set[str] = set()
    for document in documents:
        wanted = _keys_wanted(document, new_root)
        counting = [each for each in signing if each.signing.public in wanted]
        if not counting:
            raise CommandError(f"{', '.join(keys)} may not sign this: it needs {_wanted_text(document, new_root)}")
        used.update(each.name for each in counting)
        path = folder.folder / f"{document.kind.name.lower()}-{document.version}.cose"
        made.append(open_signed(path, sign_document(document, [each.signing for each in counting])))
    idle = [each.name for each in signing if each.name not in used]
    if idle:
        raise CommandError(f"{', '.join(idle)} may not sign this: it needs {_wanted_text(documents[0], new_root)}")
    for document in documents:
        for line in explained(document):
            tell(line)
    confirm(f"Sign this as {', '.join(keys)}?", yes=yes)
    saved = [folder.save(file) for file in made]
    if as_json:
        print_json([Shown.of(each) for each in saved])
        return
    for file in saved:
        say(f"{file.path}: {standing_text(file)}")
    unfinished = [file for file in saved if not is_complete(file.document, standings_of(file))]
    say(next_step((unfinished or saved)[0]))


def sign_more(found: SignedFile, keys: Sequence[str], *, yes: bool, as_json: bool = False) -> None:
    """Explain, ask, and add signatures to a document that somebody made."""
    for line in explained(found.document):
        (note if as_json else say)(line)
    signed = found
    wanted = _keys_wanted(found.document, None)
    for name in keys:
        key = keystore().load(name)
        if wanted and key.signing.public not in wanted:
            raise CommandError(f"{name} may not sign this: it needs {_wanted_text(found.document, None)}")
        signed = with_signature(signed, key.signing)
    if not wanted:
        note("Nothing here says whose signatures this needs; the gateway and the trucks will check it.")
    confirm(f"Sign this as {', '.join(keys)}?", yes=yes)
    write_private(signed.path, signed.signed)
    if isinstance(signed.document, Root | Delegation):
        signed = trust_folder().save(signed)
    if as_json:
        print_json([Shown.of(signed)])
        return
    say(standing_text(signed))
    say(next_step(signed))


def standings_of(file: SignedFile) -> list[Standing]:
    """Return how far a document's thresholds are, by the trust documents here."""
    return [Standing(name, role, signers_of(file, role)) for name, role in _roles_wanted(file.document, None)]


def _roles_wanted(document: Document, new_root: Root | None) -> list[tuple[str, RoleKeys]]:
    folder = trust_folder()
    root = folder.root_before(document)
    if new_root is not None and isinstance(document, Delegation):
        root = new_root
    newest = folder.delegations()[-1:]
    delegation = newest[0].document if newest else None
    return roles_wanted(document, root, delegation if isinstance(delegation, Delegation) else None)


def _keys_wanted(document: Document, new_root: Root | None) -> set[bytes]:
    return {key for _, role in _roles_wanted(document, new_root) for key in role.keys}


def _wanted_text(document: Document, new_root: Root | None) -> str:
    return "; ".join(f"{role_text(role, named)} ({name})" for name, role in _roles_wanted(document, new_root))


def explained(document: Document) -> list[str]:
    """Return what a document changes, as sentences."""
    folder = trust_folder()
    before: Document | None = None
    if isinstance(document, Root):
        before = folder.root_before(document)
    elif isinstance(document, Delegation):
        older = [file.document for file in folder.delegations() if file.document.version < document.version]
        before = older[-1] if older else None
    return explain(document, before, named)


def named(public: bytes) -> str:
    """Return the name of a public key's person, as this machine knows it."""
    line = keystore().people().get(public)
    return f"{line.name} ({line.key_id.hex()[:8]})" if line is not None else f"key {public.hex()[:16]}"


def standing_text(file: SignedFile) -> str:
    """Return how far a document's signatures are."""
    found = standings_of(file)
    parts = [f"{len(each.signers)} of {each.role.threshold} for {each.wanted_of}" for each in found]
    if not parts:
        return f"{len(file.parts.signatures)} signatures (whose it needs is not known here)"
    return ("complete: " if is_complete(file.document, found) else "") + ", ".join(parts)


def next_step(file: SignedFile) -> str:
    """Return what to do with a document now."""
    if is_complete(file.document, standings_of(file)):
        return "Complete. Next: digitruck trust push"
    return f"Next: give {file.path} to another key holder, who runs: digitruck trust sign {file.path.name} --key THEIRS"

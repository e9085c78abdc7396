"""The trust documents on an operator's machine: one file each (`root-1.cose`), signed in one or several sittings.

A document is made with its first signature and carries the others as they come; anybody can merge copies that were
signed apart. What is still missing is computed from the documents themselves, with the same checks that a truck makes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gateway.cli.files import write_private
from protocol import cose
from protocol.documents import (
    Config,
    Delegation,
    Document,
    Manifest,
    RoleKeys,
    Rollout,
    Root,
    document_aad,
    read_document,
)
from protocol.errors import LocalError, MalformedError, SignatureError
from protocol.numbers import SIGNATURES_MAX


class TrustFileError(LocalError):
    """A trust document that is not there, not whole, or not yours to sign; the message says what to do."""


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A document in a file, with the signatures it has so far."""

    path: Path
    signed: bytes
    document: Document
    parts: cose.Signed


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one wanted threshold is: which of its keys have signed."""

    wanted_of: str
    role: RoleKeys
    signers: frozenset[bytes]

    @property
    def missing(self) -> int:
        """How many more distinct keys must sign."""
        return max(0, self.role.threshold - len(self.signers))


def read_signed(path: Path) -> SignedFile:
    """Return the document in a file; raise `TrustFileError`."""
    try:
        signed = path.read_bytes()
    except OSError as error:
        raise TrustFileError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return open_signed(path, signed)
    except MalformedError as error:
        raise TrustFileError(f"{path} is not a signed document: {error}") from error


def open_signed(path: Path, signed: bytes) -> SignedFile:
    """Return a document as it is, or will be, in a file; raise `MalformedError`."""
    parts = cose.parse(signed)
    return SignedFile(path, signed, read_document(parts.payload), parts)


def with_signature(file: SignedFile, key: cose.SigningKey) -> SignedFile:
    """Return the document with one more signature; raise `TrustFileError` if it cannot take one."""
    if file.parts.single:
        raise TrustFileError(f"{file.path.name} is for one signer only: make it again with --save for several")
    aad = document_aad(file.document.kind)
    more = cose.parse(cose.sign([key], file.parts.payload, aad)).signatures
    return _with(file, more)


def merge(first: SignedFile, second: SignedFile) -> SignedFile:
    """Return `first` with the signatures of both; raise `TrustFileError` if they are not the same document."""
    if first.parts.payload != second.parts.payload:
        raise TrustFileError(
            f"{first.path.name} and {second.path.name} are two different documents of one version: keep one of them"
        )
    return _with(first, second.parts.signatures)


def _with(file: SignedFile, more: tuple[cose.Countersigned, ...]) -> SignedFile:
    together = list(dict.fromkeys((*file.parts.signatures, *more)))
    if len(together) > SIGNATURES_MAX:
        raise TrustFileError(f"{file.path.name} has {SIGNATURES_MAX} signatures already")
    return open_signed(file.path, cose.assemble(file.parts.payload, together))


def roles_wanted(document: Document, root: Root | None, delegation: Delegation | None) -> list[tuple[str, RoleKeys]]:
    """Return the roles whose thresholds count for a document, each with what it is called.

    `root` is the root before a new root (None for the first), else the root in force. For roots and delegations all
    of them must be reached, for other documents one.
    """
    wanted: list[tuple[str, RoleKeys]] = []
    if isinstance(document, Root | Delegation):
        if root is not None:
            wanted.append((f"root {root.version}", root.root))
        elif isinstance(document, Root) and document.version > 1:
            # Whose signatures it needs is not known, so it cannot be called complete.
            wanted.append((f"root {document.version - 1}, which is not here", RoleKeys(1, ())))
        if isinstance(document, Root):
            wanted.append((f"root {document.version}", document.root))
    elif isinstance(document, Manifest) and delegation is not None:
        wanted = [
            (f"publishers of {each.prefix}*", each.role)
            for each in delegation.publishers
            if document.name.startswith(each.prefix)
        ]
    elif isinstance(document, Config | Rollout) and delegation is not None:
        group = document.addressee.group
        wanted = [
            (f"operators of {each.group}", each.role)
            for each in delegation.operators
            if group is None or each.group in ("*", group)
        ]
    return wanted


def is_complete(document: Document, found: list[Standing]) -> bool:
    """Return whether the thresholds are reached."""
    reached = [each.missing == 0 for each in found]
    return bool(reached) and (all(reached) if isinstance(document, Root | Delegation) else any(reached))


def signers_of(file: SignedFile, role: RoleKeys) -> frozenset[bytes]:
    """Return the keys of a role that signed a document; raise `TrustFileError` if one of its signatures is false."""
    keys = {cose.key_id(key): key for key in role.keys}
    if not any(each.key_id in keys for each in file.parts.signatures):
        return frozenset()
    try:
        return file.parts.verify(keys, document_aad(file.document.kind))
    except SignatureError as error:
        raise TrustFileError(f"{file.path.name} carries a false signature: do not use this copy") from error


class TrustFolder:
    """The folder that holds every version of root and delegation that this machine has seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def roots(self) -> list[SignedFile]:
        """Return the roots, oldest first."""
        return self._all("root", Root)

    def delegations(self) -> list[SignedFile]:
        """Return the delegations, oldest first."""
        return self._all("delegation", Delegation)

    def root_before(self, document: Document) -> Root | None:
        """Return the root whose threshold must sign a document: the one before a root, the newest otherwise."""
        found: Root | None = None
        for file in self.roots():
            if isinstance(file.document, Root) and (
                not isinstance(document, Root) or file.document.version == document.version - 1
            ):
                found = file.document
        return found

    def save(self, file: SignedFile) -> SignedFile:
        """Keep a document under its own name, with the signatures of the copy that is there; return it."""
        path = self.folder / f"{file.document.kind.name.lower()}-{file.document.version}.cose"
        if path.exists():
            file = merge(read_signed(path), file)
        saved = replace(file, path=path)
        write_private(path, saved.signed)
        return saved

    def _all(self, name: str, kind: type[Document]) -> list[SignedFile]:
        found = [read_signed(path) for path in self.folder.glob(f"{name}-*.cose")]
        for file in found:
            if not isinstance(file.document, kind):
                raise TrustFileError(f"{file.path} is a {type(file.document).__name__.lower()}: rename or remove it")
        return sorted(found, key=lambda file: file.document.version)

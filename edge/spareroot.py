"""The trusted root a second time, beside the keys: a truck whose database lost it would need a person with a new code.

It is public, and worth what its signatures are; the version that was trusted last still holds against an older one.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from protocol.cose import digest
from protocol.documents import Root, parse_document
from protocol.errors import PeerError
from protocol.numbers import DocumentKind
from store.documents import Documents
from store.files import publish

log = structlog.get_logger("edge.spareroot")

_NAME = "root.cose"


def bring_back_root(documents: Documents, folder: Path) -> None:
    """Put the spare root back where the database has none."""
    if documents.current(DocumentKind.ROOT) is not None:
        return
    try:
        signed = (folder / _NAME).read_bytes()
        root, _ = parse_document(signed, Root)
        documents.put_trusted(DocumentKind.ROOT, "", root.version, digest(signed), signed)
    except (OSError, PeerError) as error:
        log.error("root.lost", reason=str(error))
    else:
        log.warning("root.brought_back", version=root.version)


def keep_spare_root(documents: Documents, folder: Path) -> None:
    """Write the trusted root beside the keys, unless it is there."""
    held, path = documents.current(DocumentKind.ROOT), folder / _NAME
    if held is not None and not (path.exists() and path.read_bytes() == held.signed):
        publish(path, held.signed)

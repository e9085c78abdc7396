"""ZIM bundles for kiwix-serve: `library.xml` in the content folder lists the ZIM files of all active `zim` bundles.

Run beside the daemon, `kiwix-serve --library CONTENT/library.xml --monitorLibrary` shows a version as soon as it is
active. The file is written whole, and only when it changes. (openzim.org/wiki/ZIM_file_format, "Header")
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import quoteattr

from protocol.documents import Manifest
from protocol.errors import LocalError
from store.files import publish

if TYPE_CHECKING:
    from edge.installer import Installed

LIBRARY: Final = "library.xml"
_MAGIC: Final = 72173914
_HEADER: Final = struct.Struct("<IHH16sIIQQQQIIQ")
_CHECKSUM_BYTES: Final = 16


class ZimError(LocalError):
    """A file that should be a ZIM file is none, or not a whole one."""


@dataclass(frozen=True, slots=True)
class ZimHeader:
    """What the head of a ZIM file says: its identity, and how many entries it has."""

    identity: uuid.UUID
    entries: int


def read_header(path: Path) -> ZimHeader:
    """Return the head of a ZIM file; raise `ZimError` for anything else, or one that was cut off."""
    with path.open("rb") as file:
        data = file.read(_HEADER.size)
        size = os.fstat(file.fileno()).st_size
    if len(data) < _HEADER.size:
        raise ZimError(f"{path.name} is no ZIM file")
    magic, major, _, identity, entries, _, *_, checksum_at = _HEADER.unpack(data)
    if magic != _MAGIC or major not in (5, 6):
        raise ZimError(f"{path.name} is no ZIM file")
    if checksum_at + _CHECKSUM_BYTES != size:
        raise ZimError(f"{path.name} is not a whole ZIM file")
    return ZimHeader(uuid.UUID(bytes=identity), entries)


def check_zims(manifest: Manifest, path: Path) -> None:
    """Raise `ZimError` unless a zim bundle has a ZIM file and each of them is whole."""
    names = [file.path for file in manifest.files if file.path.endswith(".zim")]
    if not names:
        raise ZimError("a zim bundle has a file that ends in .zim")
    for name in names:
        read_header(path / name)


def write_library(root: Path, installed: Sequence[Installed]) -> None:
    """Write the list of the ZIM files of active bundles, unless it says so already."""
    shown = [each for each in installed if each.active and each.manifest.content == "zim"]
    zims = [(each, file) for each in shown for file in each.manifest.files if file.path.endswith(".zim")]
    books = [_book(root, each, file.path, file.size) for each, file in zims]
    text = '<?xml version="1.0" encoding="UTF-8"?>\n<library version="20110515">\n' + "".join(books) + "</library>\n"
    path = root / LIBRARY
    if not books and not path.exists():
        return
    before = path.stat() if path.exists() else None
    if before is None or path.read_bytes() != text.encode():
        # Readable by kiwix-serve, which is another user's as a rule.
        publish(path, text.encode(), mode=0o644)
        after = path.stat()
        if before is not None and int(after.st_mtime) <= int(before.st_mtime):
            # kiwix-serve compares whole seconds: a change in the same one, or after a clock went back, shows as well.
            os.utime(path, (after.st_atime, int(before.st_mtime) + 1))


def _book(root: Path, installed: Installed, name: str, size: int) -> str:
    try:
        header = read_header(installed.path / name)
    except (ZimError, OSError):
        return ""  # a rotten file takes no other one out of the library
    attributes = {
        "id": str(header.identity),
        # Where this version lies, not where the pointer leads: what is open stays what it was.
        "path": str((installed.path / name).relative_to(root)),
        "title": installed.manifest.title or installed.name,
        "name": installed.name,
        "date": "",
        "articleCount": str(header.entries),
        "size": str(size // 1024),
    }
    said = " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items() if value)
    return f"  <book {said}/>\n"

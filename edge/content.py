"""Files of an active bundle: opened strictly below its folder, with their type, their tag and byte ranges (RFC 9110).

Each part of a path is opened from the folder before it, without following links, so neither a name nor a link nor a
race leads out of the bundle. Deliberately absent: HTTP itself (classroom_content.py), and ranges of several parts,
which a server may answer whole (RFC 9110 section 14.2).
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from mimetypes import MimeTypes
from pathlib import Path
from typing import Final

PARTS_MAX: Final = 32
LISTING_MAX: Final = 2_000

# The system's own tables differ from truck to truck: only Python's and these count.
_TYPES: Final = MimeTypes(filenames=())
for _extension, _type in {
    ".epub": "application/epub+zip",
    ".h5p": "application/zip",
    ".js": "text/javascript",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".mkv": "video/x-matroska",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".vtt": "text/vtt",
    ".wasm": "application/wasm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xhtml": "application/xhtml+xml",
    ".zim": "application/octet-stream",
}.items():
    _TYPES.add_type(_type, _extension)
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
# HTML and XML may say their encoding themselves, and a header would override it.
_UTF_8_TYPES: Final = frozenset({"text/plain", "text/css", "text/javascript", "text/markdown", "text/csv", "text/vtt"})


class NoSuchContentError(Exception):
    """There is no such file or folder in the bundle, or what is there is neither."""


class FolderWithoutSlashError(NoSuchContentError):
    """It is a folder; its relative links only work when its address ends in a slash."""


class RangeError(Exception):
    """The range begins beyond the end; `size` is the file's, for the Content-Range header."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes")
        self.size = size


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A regular file; whoever has it closes `descriptor`. `etag` is a strong one, in quotes."""

    descriptor: int
    name: str
    size: int
    modified_s: int
    etag: str


@dataclass(frozen=True, slots=True)
class OpenedFolder:
    """A folder that has no index.html: its entries, folders end with a slash; `complete` unless there are too many."""

    entries: tuple[str, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` to before `stop`."""

    start: int
    stop: int


def open_content(root: Path, path: str) -> OpenedFile | OpenedFolder:
    """Open what `path` (decoded, relative, / between parts) names below `root`; one that ends in / is a folder.

    A folder is its index.html if it has one. Raise `FolderWithoutSlashError` for a folder named without the slash,
    `NoSuchContentError` for whatever else is not a plain file or folder inside. It blocks: call it in a thread.
    """
    *folders, name = path.split("/")
    if len(folders) >= PARTS_MAX or not all(_is_plain(part) for part in (*folders, name or "index.html")):
        raise NoSuchContentError(path)
    with ExitStack() as stack:
        try:
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            for part in folders:
                folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                stack.callback(os.close, folder)
            if name:
                return _open_file(folder, name)
            try:
                return _open_file(folder, "index.html")
            except (FileNotFoundError, NoSuchContentError):
                return _list_folder(folder)
        except (OSError, ValueError) as error:  # ValueError: a name that no file system takes
            raise NoSuchContentError(path) from error


def content_type(name: str) -> str:
    """Return the media type for a file's name, by its extension alone; octets for what is not known."""
    # guess_file_type and guess_type differ in what they take for encodings: a .gz is served as the archive that it is.
    extension = os.path.splitext(name)[1].lower()
    if extension in _TYPES.encodings_map:
        return "application/gzip" if extension == ".gz" else "application/octet-stream"
    found = _TYPES.types_map[True].get(extension, "application/octet-stream")
    return f"{found}; charset=utf-8" if found in _UTF_8_TYPES else found


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Return the bytes that a Range header asks for, None for all; raise `RangeError` if there are none of them.

    A header that does not read, and one of several ranges, is as if it were absent (RFC 9110 section 14.2).
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, stop = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        last = int(match[2]) if match[2] else size - 1
        if match[2] and last < start:
            return None
        stop = min(size, last + 1)
    if start >= size:
        raise RangeError(size)
    return ByteRange(start, stop)


def _is_plain(part: str) -> bool:
    return part not in ("", ".", "..") and "\0" not in part and "\\" not in part


def _open_file(folder: int, name: str) -> OpenedFile:
    # O_NONBLOCK: opening a pipe must not wait for its other end.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        about = os.fstat(descriptor)
        if stat.S_ISDIR(about.st_mode):
            raise FolderWithoutSlashError(name)
        if not stat.S_ISREG(about.st_mode):
            raise NoSuchContentError(name)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenedFile(
        descriptor=descriptor,
        name=name,
        size=about.st_size,
        modified_s=int(about.st_mtime),
        # A file of a bundle is never written again: the installer makes a new one, so these three name its bytes.
        etag=f'"{about.st_ino:x}-{about.st_size:x}-{about.st_mtime_ns:x}"',
    )


def _list_folder(folder: int) -> OpenedFolder:
    entries: list[str] = []
    with os.scandir(folder) as scan:
        for entry in scan:
            if entry.name.startswith("."):
                continue
            if len(entries) == LISTING_MAX:
                return OpenedFolder(tuple(sorted(entries)), complete=False)
            if entry.is_dir(follow_symlinks=False):
                entries.append(f"{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                entries.append(entry.name)
    return OpenedFolder(tuple(sorted(entries)), complete=True)

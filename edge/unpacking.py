"""A pack becomes files: decoded against what is held, written as they come, and believed only by their digests.

A plain pack holds the contents as they are; any other stands on views of held files. Which one it is, its first byte
says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from protocol.documents import ManifestFile
from protocol.errors import MalformedError
from protocol.pack import decode_pack
from protocol.pack.decoder import decode_files
from protocol.pack.index import VERSIONS
from store.heldviews import HeldViews


def unpack(
    stream: BinaryIO,
    wanted: Sequence[ManifestFile],
    folder: Path,
    *,
    assumed: Sequence[bytes],
    places: Mapping[bytes, Path],
) -> None:
    """Write the wanted files below `folder`; raise `MalformedError` for a pack that does not lead to them.

    `assumed` are the digests of what the pack was made against, in the order that `list_held` gives; `places` is where
    each is on this disk. Views of held containers are kept in `folder` for as long as this takes.
    """
    first = stream.read(1)
    stream.seek(0)
    if not first or first[0] not in VERSIONS:
        chunks = _Chunks(decode_pack(stream.read, sum(file.size for file in wanted)))
        for file in wanted:
            _write(chunks.take(file.size), file, folder)
        return
    held = [(digest, places.get(digest, folder / digest.hex())) for digest in assumed]
    with HeldViews(held, scratch=folder) as views:
        for file, pieces in decode_files(stream.read, wanted, views):
            _write(pieces, file, folder)


def _write(pieces: Iterator[bytes], file: ManifestFile, folder: Path) -> None:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed = hashlib.sha256()
    with path.open("xb") as out:
        for piece in pieces:
            out.write(piece)
            hashed.update(piece)
    if hashed.digest() != file.digest:
        raise MalformedError(f"{file.path} does not have the contents that were signed")


class _Chunks:
    """Frames of a plain pack, handed out by the sizes of the files that lie in them."""

    def __init__(self, frames: Iterator[bytes]) -> None:
        self._frames = frames
        self._rest = memoryview(b"")

    def take(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes."""
        while size:
            if not self._rest:
                frame = next(self._frames, None)
                if frame is None:
                    raise MalformedError("the pack ends before its files do")
                self._rest = memoryview(frame)
            part = bytes(self._rest[:size])
            self._rest = self._rest[len(part) :]
            size -= len(part)
            yield part

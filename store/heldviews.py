"""The views of held files, as packs stand on them: a plain file is its own view, a container's is kept beside it.

A view is worked out the first time that it is needed and lies in a temporary folder until `close`. The digest of every
file that is used is checked first: a pack that stands on a rotted file would only fail at its end.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from protocol.errors import MalformedError
from protocol.pack.containers import open_view
from protocol.pack.index import BaseView

_OPEN_FILES_MAX = 64


class FileSource:
    """An open file as a source of bytes at any place."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer where the file ends early."""
        self._file.seek(offset)
        return self._file.read(length)


class HeldViews:
    """Reads views of held files; `held` gives digest and place of each, in the order that both sides agree on."""

    def __init__(self, held: Sequence[tuple[bytes, Path]], *, scratch: Path | None = None) -> None:
        self._held = held
        self._folder = Path(tempfile.mkdtemp(prefix="views-", dir=scratch))
        self._checked: set[int] = set()
        self._files: dict[BaseView, BinaryIO] = {}

    def __enter__(self) -> HeldViews:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back every file and the room of the views."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def size(self, view: BaseView) -> int:
        """Return the size of a view (bytes); raise `MalformedError` for one that is not held, or is not that size."""
        if not 0 <= view.number < len(self._held):
            raise MalformedError("the pack stands on a file that is not held")
        path = self._held[view.number][1]
        if view.opened_size is not None:
            return view.opened_size
        try:
            return path.stat().st_size
        except OSError as error:
            raise MalformedError(f"{path.name} was meant to be held and is not") from error

    def read(self, view: BaseView, offset: int, length: int) -> bytes:
        """Return a stretch of a view; raise `MalformedError` where there is less."""
        file = self._files.pop(view, None) or self._open(view)
        # The most recently used stand last: the first one is given up when there are too many.
        self._files[view] = file
        if len(self._files) > _OPEN_FILES_MAX:
            self._files.pop(next(iter(self._files))).close()
        file.seek(offset)
        data = file.read(length)
        if len(data) != length:
            raise MalformedError("a held file is shorter than the pack expects")
        return data

    def _open(self, view: BaseView) -> BinaryIO:
        digest, path = self._held[view.number]
        try:
            if view.number not in self._checked:
                with path.open("rb") as stream:
                    if hashlib.file_digest(stream, "sha256").digest() != digest:
                        raise MalformedError(f"{path.name} was meant to be held and has rotted")
                self._checked.add(view.number)
            if view.opened_size is None:
                return path.open("rb")
            place = self._folder / str(view.number)
            if not place.exists():
                self._work_out(path, place, view.opened_size, view.views)
            return place.open("rb")
        except OSError as error:
            raise MalformedError(f"{path.name} was meant to be held and cannot be read") from error

    def _work_out(self, path: Path, place: Path, size: int, views: int) -> None:
        with path.open("rb") as stream, place.open("xb") as out:
            pieces = open_view(FileSource(stream, path.stat().st_size), views=views)
            left = size
            for piece in pieces or ():
                left -= len(piece)
                if left < 0:
                    break
                out.write(piece)
            if left:
                raise MalformedError(f"{path.name} opens to another size than the pack expects")

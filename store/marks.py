"""High-water marks beside links.db: what must not be forgotten even when that database is lost or an old copy.

A small file of two slots that are written in turn, each with its hash, so a torn write leaves the other one. It holds
a generation, which both sides raise with every block of sequence numbers and every slice of the budget, and what was
spent or promised on each link in its period. The order is: database, then marks, then the datagram; so the marks are
never behind what was sent. A database with a lower generation than the marks is an older copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from protocol import cbor, cose
from protocol.errors import MalformedError
from protocol.numbers import DIGEST_BYTES
from store.database import Database
from store.files import sync_folder
from store.settings import Settings

SLOT_BYTES: Final = 4_096
_GENERATION: Final = "generation"


@dataclass(frozen=True, slots=True)
class LinkMark:
    """What a link has spent or promised in a period: by flash, and by the others (bytes)."""

    period: int
    flash: int
    other: int


class Marks:
    """The marks of an open LINKS database.

    `found` says that there were sound marks at opening; `ahead`, that they are ahead of the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._settings = Settings(database)
        self._path = database.path.with_name(database.path.name + ".marks")
        self.links: dict[str, LinkMark] = {}
        noted, self._next_slot = self._read()
        self.generation = self._settings.get_int(_GENERATION)
        self.found = noted is not None
        self.ahead = noted is not None and noted > self.generation
        self.generation = max(self.generation, noted or 0)

    @contextmanager
    def durable(self) -> Iterator[None]:
        """Run a block as a transaction of the database, and note `links` as it leaves them; durable at the end."""
        with self._database.atomic():
            yield
            self._settings.put_int(_GENERATION, self.generation + 1)
        self.generation += 1
        self._write()

    def _read(self) -> tuple[int | None, int]:
        """Load the newest sound slot; return its generation, and the slot to write next."""
        if not self._path.exists():
            return None, 0
        data = self._path.read_bytes()
        best, next_slot = None, 0
        for slot in (0, 1):
            part = data[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES]
            length = int.from_bytes(part[:2], "big")
            body, digest = part[2 : 2 + length], part[2 + length : 2 + length + DIGEST_BYTES]
            if not length or cose.digest(body) != digest:
                continue
            try:
                generation, links = cbor.decode(body)
            except (MalformedError, ValueError, TypeError):
                continue
            if best is None or generation > best:
                best, next_slot = generation, 1 - slot
                self.links = {name: LinkMark(*values) for name, values in links.items()}
        return best, next_slot

    def _write(self) -> None:
        links = {name: [mark.period, mark.flash, mark.other] for name, mark in self.links.items()}
        body = cbor.encode([self.generation, links])
        data = len(body).to_bytes(2, "big") + body + cose.digest(body)
        if len(data) > SLOT_BYTES:
            raise ValueError("more links than the marks have room for")
        is_new = not self._path.exists()
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, data.ljust(SLOT_BYTES, b"\0"), self._next_slot * SLOT_BYTES)
            os.fsync(file)
        finally:
            os.close(file)
        if is_new:
            sync_folder(self._path.parent)
        self._next_slot = 1 - self._next_slot

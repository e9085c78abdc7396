"""The closed batches of a series that its next one may go on from (`protocol.batch`), once the gateway has them.

They are in memory only: after a restart the first batch stands alone. Few batches go on from each other in a row, so
that any one is decoded after a few others at most, and what is lost with one of them is little.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from protocol.batch import BatchEncoder
from protocol.cose import digest
from protocol.messages import Parcel
from protocol.rows import RowModel
from protocol.schema import Codec, Schema
from store.bases import Key, is_delivered
from store.database import Database
from store.writer import Writer

# Each further batch saves less, and costs who reads one of them more: eight save nine tenths of what can be saved.
RUN_BATCHES: int = 8
_KEPT_MAX = 2  # the newest, and one that was delivered before


@dataclass(slots=True)
class Closed:
    """A closed batch, the `depth`-th of its run. `learnt` is made when it is first gone on from."""

    key: Key
    digest: bytes
    depth: int
    encoder: BatchEncoder | None
    learnt: RowModel | None = None

    async def model(self) -> RowModel:
        """Return what it had learnt at its end."""
        if self.learnt is None:
            assert self.encoder is not None, "one of both is there"
            self.learnt, self.encoder = await asyncio.to_thread(self.encoder.learnt), None
        return self.learnt


class Bases:
    """What one series may go on from."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer
        self._closed: list[Closed] = []

    def add(self, schema: Schema, parcel: Parcel, encoder: BatchEncoder, base: Closed | None) -> None:
        """Note a batch that was closed; `base` is what it goes on from itself."""
        depth = 1 if base is None else base.depth + 1
        if schema.codec is not Codec.CARRIED or parcel.epoch is None:
            return
        content = Parcel(None, parcel.sequence, parcel.precedence, parcel.kind, parcel.payload).encode()
        self._closed.append(Closed((parcel.epoch, parcel.sequence), digest(content), depth, encoder))
        del self._closed[:-_KEPT_MAX]

    def forget(self) -> None:
        """Let the next batch stand alone."""
        self._closed.clear()

    async def newest(self, than: Closed | None = None) -> Closed | None:
        """Return the newest batch that was delivered, if it is newer than a given one; None if there is none."""
        epoch = self._database.epoch
        for at in range(len(self._closed) - 1, -1, -1):
            closed = self._closed[at]
            if closed is than:
                return None
            key = closed.key
            if key[0] == epoch and await self._writer.run(lambda key=key: is_delivered(self._database, key)):  # type: ignore[misc]
                del self._closed[:at]
                return closed if closed.depth < RUN_BATCHES else None
        return None

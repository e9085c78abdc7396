"""A recorder on a real database, without a daemon around it, and failures of its disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge.clock import Clock
from edge.moment import Moment
from edge.recorder import Recorder
from protocol import batch
from protocol.cose import SigningKey
from protocol.messages import Ack, Event, decode_payload, unseal
from protocol.numbers import ParcelKind
from protocol.schema import Channel, Schema
from store.database import open_database
from store.errors import CommitUnknownError
from store.parcels import ParcelQueue
from store.schema import STATE
from store.writer import Writer

KEY = SigningKey(b"k" * 32)
SCHEMA = Schema((Channel("bat_v", "V", 100, 2600, 5), Channel("pv_w", "W", 1, 0, 50)), period_s=60)
OTHER = Schema((Channel("level", "m", 10, 0, 5),), period_s=10)
NOW_S = 1_795_000_000


class Monotonic:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Truck:
    """A recorder on its database; `restart` is a power cut and a new start."""

    folder: Path
    monotonic: Monotonic = field(default_factory=Monotonic)
    boot: int = 7
    synced: bool = True
    share_bytes: int = 4 << 20
    parcels_seen: int = 0
    free: bool = False
    paid_bytes: int = 0

    async def start(self, *, open_series: bool = True) -> None:
        self.database = open_database(self.folder / "state.db", schema=STATE, share_bytes=self.share_bytes)
        self.queue = ParcelQueue(self.database, "ke-arrow")
        self.writer = Writer(self.database)
        self.writer.start()
        offset_s = NOW_S - self.monotonic.now if self.synced else None
        self.clock = Clock(boot=self.boot, floor_s=0, offset_s=offset_s, monotonic=self.monotonic)
        self.recorder = Recorder(
            truck="ke-arrow",
            key=KEY,
            database=self.database,
            queue=self.queue,
            writer=self.writer,
            clock=self.clock,
            batch_age_s=3_600,
            on_parcel=self._on_parcel,
            moment=lambda: Moment(is_free=self.free, paid_bytes=self.paid_bytes),
        )
        await self.recorder.recover()
        if open_series:
            await self.recorder.open_series("solar", SCHEMA)

    async def _on_parcel(self) -> None:
        self.parcels_seen += 1

    async def stop(self) -> None:
        await self.writer.close()
        self.database.crash()

    async def restart(self, **options: Any) -> None:
        await self.stop()
        await self.start(**options)

    async def row(self, *cells: int | None, name: str = "solar") -> None:
        self.monotonic.now += 60
        await self.recorder.on_row(name, self.monotonic.now, cells)

    def payloads(self, kind: ParcelKind) -> list[Any]:
        sealed = [row[0] for row in self.database.rows("SELECT sealed FROM parcels ORDER BY id")]
        parcels = [unseal(each) for each in sealed]
        return [decode_payload(each) for each in parcels if each.kind is kind]

    def deliver(self) -> None:
        """Let the gateway acknowledge everything."""
        last = self.database.value("SELECT max(sequence) FROM parcels")
        self.queue.mark_delivered(Ack(cumulative=last), self.queue.epoch, self.clock.at_least_s())

    def payloads_left(self, kind: ParcelKind) -> list[Any]:
        """Return those of parcels that still wait, in their order."""
        sealed = [row[0] for row in self.database.rows("SELECT sealed FROM parcels WHERE state = 1 ORDER BY id")]
        return [decode_payload(each) for each in map(unseal, sealed) if each.kind is kind]

    def events(self) -> list[Event]:
        return self.payloads(ParcelKind.EVENT)

    def rows(self, name: Schema = SCHEMA) -> list[tuple[int | None, int, tuple[int | None, ...]]]:
        """Return (boot, time, cells) of every row of a schema that is in a parcel."""
        numbers = {each.number for each in self.payloads(ParcelKind.SCHEMA) if each.schema == name.encoded}
        return [
            (each.boot, time, cells)
            for each in self.payloads(ParcelKind.BATCH)
            if each.schema in numbers
            for time, cells in batch.decode(name, each.body)
        ]

    def open_rows(self) -> int:
        return int(self.database.value("SELECT count(*) FROM open_rows"))


def break_commits(truck: Truck, monkeypatch: pytest.MonkeyPatch, *, times: int, durable: bool) -> None:
    """Let the next COMMITs of jobs that change something report an error, after they were done or instead."""
    run, left = truck.writer.run, times

    async def unknown(function: Any) -> Any:
        nonlocal left
        if left <= 0:
            return await run(function)
        left -= 1
        if durable:
            await run(function)
        raise CommitUnknownError("COMMIT failed")

    monkeypatch.setattr(truck.writer, "run", unknown)

"""What the simulation knows to be true: every row and event that a truck was offered, and what it answered."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from protocol.batch import decode, decode_on
from protocol.messages import Batch, Event, SchemaOffer
from protocol.numbers import ParcelKind
from protocol.rows import RowModel
from protocol.schema import Codec, Schema, decode_schema
from tests.sim.history import ParcelName

_EVENT = re.compile("e([0-9]+)")


@dataclass
class TruckTruth:
    """The truth of one truck; rows and events are numbered from 1."""

    rows_offered: int = 0
    rows_refused: set[int] = field(default_factory=set)
    rows_accepted: dict[int, float] = field(default_factory=dict)  # serial -> when it was taken
    may_double: set[int] = field(default_factory=set)  # were in an open batch of an image that was put back
    events_offered: int = 0
    events_accepted: set[int] = field(default_factory=set)
    event_parcels: dict[int, ParcelName] = field(default_factory=dict)


class Truth:
    """The truth of the fleet."""

    def __init__(self) -> None:
        self.of: defaultdict[str, TruckTruth] = defaultdict(TruckTruth)
        self.boots_told: defaultdict[str, set[int]] = defaultdict(set)  # whose clock event was accepted
        self.closed = False  # nothing is offered any more
        self.parcels: dict[ParcelName, tuple[ParcelKind, bytes]] = {}  # as last made: a lost number is given again

    def parcel_made(self, name: ParcelName, kind: ParcelKind, payload: bytes) -> None:
        """Note what a parcel holds."""
        self.parcels[name] = kind, payload
        if kind is ParcelKind.EVENT and (found := _EVENT.match(Event.decode(payload).name)):
            self.of[name[0]].event_parcels[int(found[1])] = name

    def rows_in(self, truck: str, schema: Schema) -> dict[int, list[ParcelName]]:
        """Return which parcels each row was put into; a summary holds no rows."""
        mine = [each for each in self.parcels.items() if each[0][0] == truck]
        offers = [SchemaOffer.decode(payload) for _, (kind, payload) in mine if kind is ParcelKind.SCHEMA]
        # The same channels have several schemas: the truck takes the newest codec that its gateway knows.
        schemas = {each.number: decode_schema(each.schema) for each in offers}
        wanted = {number: each for number, each in schemas.items() if each.channels == schema.channels}
        learnt: dict[tuple[int, int] | None, RowModel] = {}
        found: dict[int, list[ParcelName]] = {}
        for name, (kind, payload) in mine:
            if kind is not ParcelKind.BATCH or (batch := Batch.decode(payload)).schema not in wanted:
                continue
            mine_is, base = wanted[batch.schema], batch.base_of(name[1], name[2])
            if mine_is.codec is Codec.SUMMARY or (base is not None and base not in learnt):
                continue
            if mine_is.codec is Codec.CARRIED:
                rows, learnt[name[1:]] = decode_on(mine_is, batch.body, base=learnt.get(base))
            else:
                rows = decode(mine_is, batch.body)
            for _, (serial, *_) in rows:
                if serial is not None:
                    found.setdefault(serial, []).append(name)
        return found

    def image_taken(self, truck: str, schema: Schema) -> None:
        """Note which rows are in no parcel yet: put back, the image makes another parcel of them."""
        closed = self.rows_in(truck, schema)
        # One that was refused may be there all the same.
        offered = range(1, self.of[truck].rows_offered + 1)
        self.of[truck].may_double.update(each for each in offered if each not in closed)

    def clock_told(self, truck: str, boot: int) -> None:
        """Note that a truck has accepted its own event of what the times of a boot mean."""
        self.boots_told[truck].add(boot)

    def offer_row(self, truck: str) -> int:
        """Number a row that is about to be offered."""
        self.of[truck].rows_offered += 1
        return self.of[truck].rows_offered

    def row_refused(self, truck: str, serial: int) -> None:
        """Note that the truck refused a row (it may be there all the same)."""
        self.of[truck].rows_refused.add(serial)

    def row_accepted(self, truck: str, serial: int, at_s: float) -> None:
        """Note that the truck promised to keep a row."""
        self.of[truck].rows_accepted[serial] = at_s

    def offer_event(self, truck: str) -> int:
        """Number an event that is about to be offered."""
        self.of[truck].events_offered += 1
        return self.of[truck].events_offered

    def event_accepted(self, truck: str, number: int) -> None:
        """Note that the truck promised to keep an event."""
        self.of[truck].events_accepted.add(number)

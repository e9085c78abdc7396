"""The truck's own account beside the gateway's: what was carried, what arrived, and what was lost in between.

A truck tells totals that only grow (SPEC.md, "The truck's account"). Held against the gateway's ledger over the same
span, what left the truck and did not arrive was lost on the way up, and what left here and did not arrive there on the
way down. The gateway's ledger is kept by the hour, so the ends of a span are as exact as that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from protocol.numbers import ACCOUNT_EVENT, NAME_CHARS_MAX, Precedence
from store.fleet.evidence import HOUR_MS
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, TruckRecord

_KEY: Final = re.compile(rf"([a-z0-9][a-z0-9-]{{0,{NAME_CHARS_MAX - 1}}})\.([0-3][ud]|b|m)")
Key = tuple[str, Precedence, Direction]


@dataclass(frozen=True, slots=True)
class Account:
    """Totals of a truck at a time: carried bytes by link, precedence and way; billed bytes and money by link."""

    at_ms: int
    carried: Mapping[Key, int]
    billed: Mapping[str, int]
    milli: Mapping[str, int]

    def since(self, before: Account | None) -> Account:
        """Return what was added after another account; all of it if the ledger was begun anew in between."""
        if before is None or any(self.carried.get(key, 0) < count for key, count in before.carried.items()):
            return self
        return Account(
            self.at_ms,
            {key: count - before.carried.get(key, 0) for key, count in self.carried.items()},
            {key: max(0, count - before.billed.get(key, 0)) for key, count in self.billed.items()},
            {key: max(0, count - before.milli.get(key, 0)) for key, count in self.milli.items()},
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One link, precedence and way: what the truck carried and what the gateway saw."""

    link: str
    precedence: Precedence
    direction: Direction
    truck_bytes: int
    gateway_bytes: int

    @property
    def lost_bytes(self) -> int:
        """What did not arrive on the other side."""
        sent, arrived = self.truck_bytes, self.gateway_bytes
        return sent - arrived if self.direction is Direction.UP else arrived - sent


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both accounts from `since_ms` to `until_ms`; billed bytes and money (thousandths) are the truck's, by link."""

    truck: str
    since_ms: int
    until_ms: int
    lines: Sequence[Line]
    billed: Mapping[str, int]
    milli: Mapping[str, int]

    def loss(self, link: str, direction: Direction) -> float | None:
        """Return the share of a link's bytes that was lost one way; None where too little was carried to tell."""
        mine = [each for each in self.lines if each.link == link and each.direction is direction]
        sent = sum(each.truck_bytes if direction is Direction.UP else each.gateway_bytes for each in mine)
        if sent < _TELLING_BYTES:
            return None
        return min(0.9, max(0.0, sum(each.lost_bytes for each in mine) / sent))


# Less says more about the hour at either end than about the link.
_TELLING_BYTES: Final = 50_000


def read_account(values_json: str, at_ms: int) -> Account:
    """Return the account in an event's values; what is none of it is skipped, since a newer truck may tell more."""
    carried: dict[Key, int] = {}
    billed: dict[str, int] = {}
    milli: dict[str, int] = {}
    for name, value in json.loads(values_json).items():
        found = _KEY.fullmatch(name)
        if found is None or type(value) is not int or value < 0:
            continue
        link, what = found.groups()
        if what == "b":
            billed[link] = value
        elif what == "m":
            milli[link] = value
        else:
            way = Direction.UP if what[1] == "u" else Direction.DOWN
            carried[link, Precedence(int(what[0])), way] = value
    return Account(at_ms, carried, billed, milli)


async def compared(fleet: FleetStore, truck: TruckRecord) -> Comparison | None:
    """Return a truck's account of its newest span beside the gateway's; None while it told none with a known time."""
    events = await fleet.events(truck.name, names=[ACCOUNT_EVENT], newest_first=True, limit=2)
    told = [read_account(each.values_json, each.time_ms) for each in events if each.offset_ms is not None]
    if not told:
        return None
    newest, before = told[0], told[1] if len(told) > 1 else None
    span = newest.since(before)
    is_whole = span is newest
    since_ms = truck.enrolled_ms if is_whole or before is None else before.at_ms
    seen: dict[Key, int] = {}
    for each in await fleet.ledger(truck.name, since_ms - since_ms % HOUR_MS, newest.at_ms):
        key = each.link, each.precedence, each.direction
        seen[key] = seen.get(key, 0) + each.bytes
    lines = [
        Line(*key, span.carried.get(key, 0), seen.get(key, 0))
        for key in sorted(span.carried.keys() | seen.keys())
        if key[0]
    ]
    return Comparison(truck.name, since_ms, newest.at_ms, lines, span.billed, span.milli)

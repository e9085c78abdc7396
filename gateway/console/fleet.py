"""The fleet's page: a map and a list, what needs somebody first. A thousand trucks cost a handful of queries."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from gateway.api.operations import Call
from gateway.api.shapes import Cursor, Shape
from gateway.api.trucks import known_truck
from gateway.console.facts import GLANCE_UNITS, Glance, glance
from gateway.console.pages import View, page
from store.fleet.alarms import AlarmRecord
from store.fleet.evidence import LatestValue
from store.fleet.limits import PAGE_MAX
from store.fleet.records import TruckRecord

_TRUCKS_MAX = 10_000
_ROWS = 200


class FleetQuery(Shape, frozen=True):
    """Which trucks: part of a name or a group; `attention` for those only that need somebody."""

    q: Annotated[str, Meta(max_length=64)] = ""
    attention: bool = False
    after: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """The trucks that a query asks for, worst first, and counts of the whole fleet."""

    shown: list[Glance]
    found: int
    trucks: int
    heard_today: int
    needing: int


@page("GET", "/")
async def show_fleet(call: Call, query: FleetQuery) -> View:
    """Show the map and the list."""
    return View("fleet.html", {"overview": await overview(call, query), "query": query, "trust": _warnings(call)})


@page("GET", "/fleet/list")
async def show_list(call: Call, query: FleetQuery) -> View:
    """Show the list alone, for a page that refreshes it."""
    return View("fleet_list.html", {"overview": await overview(call, query), "query": query})


@page("GET", "/fleet/map.json")
async def show_map(call: Call) -> web.Response:
    """Answer with the places of the trucks that have one."""
    found = await _glances(call)
    return web.json_response(
        [
            {
                "truck": each.truck.name,
                "at": each.position,
                "level": each.level,
                "heard_ms": each.truck.last_heard_ms,
            }
            for each in found
            if each.position is not None
        ]
    )


async def overview(call: Call, query: FleetQuery) -> Overview:
    """Return what the list shows."""
    glances = await _glances(call)
    wanted = query.q.lower()
    found = [
        each
        for each in glances
        if (wanted in each.truck.name or wanted in each.truck.group) and (each.level or not query.attention)
    ]
    found.sort(key=lambda each: (-each.level, each.truck.name))
    day_ms = call.api.services.now_ms() - 86_400_000
    return Overview(
        shown=found[:_ROWS],
        found=len(found),
        trucks=len(glances),
        heard_today=sum((each.truck.last_heard_ms or 0) > day_ms for each in glances),
        needing=sum(each.level > 0 for each in glances),
    )


async def glance_of(call: Call, name: str) -> Glance:
    """Return one truck at a glance; raise a 404 `Problem`."""
    truck = await known_truck(call, name)
    values = await call.api.fleet.latest_values(truck=name)
    missing = (await call.api.fleet.missing_parcels()).get(name, 0)
    return glance(truck, values, missing, await call.api.fleet.alarms(name), call.api.services.now_ms())


async def _glances(call: Call) -> list[Glance]:
    """Return every truck that is not revoked."""
    fleet, now_ms = call.api.fleet, call.api.services.now_ms()
    trucks: list[TruckRecord] = []
    after = None
    while len(trucks) < _TRUCKS_MAX and (found := await fleet.trucks(after, PAGE_MAX)):
        trucks += [each for each in found if each.revoked_ms is None]
        after = found[-1].name
    values: dict[str, list[LatestValue]] = {}
    for start in range(0, len(trucks), PAGE_MAX):
        names = [each.name for each in trucks[start : start + PAGE_MAX]]
        for each in await fleet.latest_of_units(GLANCE_UNITS, names):
            values.setdefault(each.truck, []).append(each)
    missing = await fleet.missing_parcels()
    alarms: dict[str, list[AlarmRecord]] = {}
    for each_alarm in await fleet.alarms(limit=PAGE_MAX):
        alarms.setdefault(each_alarm.truck, []).append(each_alarm)
    return await asyncio.to_thread(
        lambda: [
            glance(each, values.get(each.name, ()), missing.get(each.name, 0), alarms.get(each.name, ()), now_ms)
            for each in trucks
        ]
    )


def _warnings(call: Call) -> list[str]:
    trust = call.api.services.trust
    return [] if trust is None else list(trust().warnings)


PAGES = (show_fleet, show_list, show_map)

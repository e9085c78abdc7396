"""One truck's page: how it is, what it has, where its bytes went, and charts of every channel with their gaps."""

from __future__ import annotations

from aiohttp import web

from gateway.api import alarms, budgets, configs, coverage, evidence, trucks
from gateway.api.auth import OPERATOR
from gateway.api.operations import Call
from gateway.api.shapes import Shape, TruckPath
from gateway.console.fleet import glance_of
from gateway.console.pages import View, ask, ask_or_none, page, see_other

_EVENTS = 20
_DAY_MS = 86_400_000
_COVERAGE_DAYS = 30


class ConfirmForm(Shape, frozen=True):
    """The name of the truck, typed again."""

    name: str


@page("GET", "/trucks/{truck}")
async def show_truck(call: Call, path: TruckPath) -> View:
    """Show one truck."""
    detail = await ask(call, trucks.get_truck, path=path)
    covered = await ask(call, coverage.get_coverage, path=path, query=coverage.CoverageQuery(step=86_400))
    return View(
        "truck.html",
        {
            "truck": detail,
            "glance": await glance_of(call, path.truck),
            "values": await call.api.fleet.latest_values(truck=path.truck),
            "budget": await ask(call, budgets.get_budget, path=path),
            "config": await ask_or_none(call, configs.get_config, path=path),
            "coverage": covered,
            "alarms": (await ask(call, alarms.list_alarms, query=alarms.AlarmQuery(truck=path.truck))).items,
            "days": day_shares(covered),
            "events": await ask(
                call, evidence.list_events, path=path, query=evidence.EventsQuery(limit=_EVENTS, newest=True)
            ),
        },
    )


@page("POST", "/trucks/{truck}/revoke", needs=OPERATOR)
async def revoke(call: Call, path: TruckPath) -> web.Response:
    """Revoke a truck."""
    await ask(call, trucks.revoke_truck, path=path)
    return see_other(f"/trucks/{path.truck}")


def day_shares(covered: coverage.CoverageShape) -> list[tuple[int, int | None]]:
    """Return (start of the day, percent of the values due that are here; None where nothing was due)."""
    shares: list[tuple[int, int | None]] = []
    for at, start_ms in enumerate(covered.starts_ms):
        due = sum(each.due[at] for each in covered.channels)
        here = sum(min(each.count[at], each.due[at]) for each in covered.channels)
        shares.append((start_ms, None if due == 0 else round(100 * here / due)))
    return shares[-_COVERAGE_DAYS:]


PAGES = (show_truck, revoke)

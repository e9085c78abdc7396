"""Alarms: what somebody should look at, since when, and the next step; a person acknowledges one."""

from __future__ import annotations

from aiohttp import web

from gateway.api import alarms
from gateway.api.auth import OPERATOR
from gateway.api.operations import Call
from gateway.api.shapes import Cursor, Shape
from gateway.console.pages import View, ask, page, see_other


class AlarmsQuery(Shape, frozen=True):
    """Where the page begins; with `all` those that are over, too."""

    after: Cursor | None = None
    all: bool = False


@page("GET", "/alarms")
async def show_alarms(call: Call, query: AlarmsQuery) -> View:
    """List alarms."""
    found = await ask(call, alarms.list_alarms, query=alarms.AlarmQuery(after=query.after, all=query.all))
    return View("alarms.html", {"found": found, "query": query})


@page("POST", "/alarms/{id}/acknowledge", needs=OPERATOR)
async def acknowledge(call: Call, path: alarms.AlarmPath) -> web.Response:
    """Acknowledge an alarm."""
    await ask(call, alarms.acknowledge_alarm, path=path)
    return see_other("/alarms")


PAGES = (show_alarms, acknowledge)

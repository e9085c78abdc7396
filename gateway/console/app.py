"""The console's pages on the gateway's HTTP application, at `/`."""

from __future__ import annotations

from aiohttp import web

from gateway.console import account, alarms, content, fleet, money, people, report, settings, trucks
from gateway.console.assets import serve_asset
from gateway.console.pages import Page, endpoint

PAGES: tuple[Page, ...] = (
    *account.PAGES,
    *fleet.PAGES,
    *trucks.PAGES,
    *alarms.PAGES,
    *settings.PAGES,
    *content.PAGES,
    *money.PAGES,
    *people.PAGES,
    *report.PAGES,
)


def add_console(app: web.Application) -> None:
    """Add the console to an application that `gateway.api.app.make_app` made."""
    for each in PAGES:
        app.router.add_route(each.method, each.path, endpoint(each))
    app.router.add_get("/static/{path:.+}", serve_asset)

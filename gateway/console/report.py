"""The impact report's page: which period and form; the report itself is the API's answer."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.api.operations import Call
from gateway.console.pages import View, page


@page("GET", "/report")
async def show_report(call: Call) -> View:
    """Show the form."""
    now = datetime.fromtimestamp(call.api.services.now_ms() / 1000, UTC)
    return View("report.html", {"since": f"{now.year}-01-01", "until": now.strftime("%Y-%m-%d")})


PAGES = (show_report,)

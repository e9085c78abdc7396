"""Budgets: what each truck's links may cost, what they did, and when they will be used up."""

from __future__ import annotations

from gateway.api import budgets, ledger
from gateway.api.operations import Call
from gateway.api.shapes import Cursor, Shape
from gateway.console.pages import View, ask, page
from protocol.wire import Name


class BudgetsQuery(Shape, frozen=True):
    """Where the page begins, and of which group."""

    after: Cursor | None = None
    group: Name | None = None


@page("GET", "/budgets")
async def show_budgets(call: Call, query: BudgetsQuery) -> View:
    """Show every truck's budgets, and where this month's bytes went."""
    found = await ask(call, budgets.list_budgets, query=budgets.BudgetQuery(after=query.after, group=query.group))
    lines = await ask(call, ledger.list_ledger, query=ledger.LedgerQuery(by="precedence,cause", limit=500))
    causes = sorted(lines.items, key=lambda each: -each.bytes)
    return View("budgets.html", {"found": found, "causes": causes, "total": lines.total_bytes})


PAGES = (show_budgets,)

"""Budgets: what each truck's links may cost, what they did, and when they will be used up."""

from __future__ import annotations

from gateway.api import ledger
from gateway.api.operations import Call
from gateway.api.shapes import Cursor, PageQuery, Shape
from gateway.console.pages import View, ask, page


class BudgetsQuery(Shape, frozen=True):
    """Where the page begins."""

    after: Cursor | None = None


@page("GET", "/budgets")
async def show_budgets(call: Call, query: BudgetsQuery) -> View:
    """Show every truck's budgets."""
    found = await ask(call, ledger.list_budgets, query=PageQuery(after=query.after))
    lines = await ask(call, ledger.list_ledger, query=ledger.LedgerQuery(limit=500))
    by_cause: dict[tuple[str, str], int] = {}
    for each in lines.items:
        by_cause[each.precedence, each.cause] = by_cause.get((each.precedence, each.cause), 0) + each.bytes
    causes = sorted(by_cause.items(), key=lambda item: -item[1])
    return View("budgets.html", {"found": found, "causes": causes, "total": sum(by_cause.values())})


PAGES = (show_budgets,)

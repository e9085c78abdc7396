"""The client's calls about bytes and money: the ledger, budgets and alarms."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.answers import LedgerPage
from gateway.apicalls import ITEMS_MAX, PAGE_ITEMS, ApiCalls, decode, path_part, stamp
from gateway.moneyanswers import (
    Alarm,
    AlarmPage,
    BillPage,
    Budget,
    BudgetPage,
    History,
    PoolPage,
    PoolRow,
    ReconciledBill,
    TruckAccount,
)

_JSON = "application/json"


class MoneyCalls(ApiCalls):
    """What `gateway.client.Client` asks about bytes and money."""

    async def ledger(
        self,
        truck: str | None = None,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        source: str = "gateway",
        step_s: int | None = None,
        by: Sequence[str] = (),
        after: str | None = None,
    ) -> LedgerPage:
        """Return a page of the ledger of one truck, or of all; `by` are the columns that lines are told apart by."""
        path = "/v1/ledger" if truck is None else f"/v1/trucks/{path_part(truck)}/ledger"
        query: dict[str, object] = {
            "since": stamp(since_ms),
            "until": stamp(until_ms),
            "source": source,
            "step": step_s,
        }
        query |= {"by": ",".join(by) or None}
        return await self.get(path, LedgerPage, query | {"after": after, "limit": PAGE_ITEMS})

    async def account(self, truck: str) -> TruckAccount:
        """Return a truck's own account beside the gateway's; `ApiError` 404 if it told none yet."""
        return await self.get(f"/v1/trucks/{path_part(truck)}/account", TruckAccount)

    async def budget(self, truck: str) -> Budget:
        """Return one truck's budgets this month."""
        return await self.get(f"/v1/trucks/{path_part(truck)}/budget", Budget)

    async def budgets(self, *, group: str | None = None, limit: int = ITEMS_MAX) -> list[Budget]:
        """Return the budgets of every truck, or of a group's."""
        return await self.list_all("/v1/budgets", BudgetPage, {"group": group}, limit)

    async def reconcile(
        self, truck: str, link: str, lines: Sequence[tuple[int, int, int]], *, threshold_percent: float = 5.0
    ) -> ReconciledBill:
        """Hold a bill against the ledger; `lines` are since and until (Unix ms) and billed bytes."""
        spans = [{"since_ms": since, "until_ms": until, "bytes": count} for since, until, count in lines]
        body = msgspec.json.encode({"link": link, "lines": spans, "threshold_percent": threshold_percent})
        answer = await self.call("POST", f"/v1/trucks/{path_part(truck)}/bills", body=body, content_type=_JSON)
        return decode(answer, ReconciledBill)

    async def bills(self, truck: str, *, limit: int = ITEMS_MAX) -> list[ReconciledBill]:
        """List the bills of a truck that were compared, newest first."""
        return await self.list_all(f"/v1/trucks/{path_part(truck)}/bills", BillPage, {}, limit)

    async def history(self, truck: str, *, since_ms: int | None = None, until_ms: int | None = None) -> History:
        """Return what a truck had to send and fetch, and when its links were there, as one page."""
        path = f"/v1/trucks/{path_part(truck)}/history"
        query = {"since": stamp(since_ms), "until": stamp(until_ms), "limit": PAGE_ITEMS}
        first = page = await self.get(path, History, query)
        items = list(first.items)
        while page.next is not None and len(items) < ITEMS_MAX:
            page = await self.get(path, History, query | {"after": page.next})
            items += page.items
        return msgspec.structs.replace(first, items=items, next=None)

    async def pools(self, *, group: str | None = None, limit: int = ITEMS_MAX) -> list[PoolRow]:
        """List the pools of a group, or of all."""
        return await self.list_all("/v1/pools", PoolPage, {"group": group}, limit)

    async def alarms(
        self, *, truck: str | None = None, with_cleared: bool = False, limit: int = ITEMS_MAX
    ) -> list[Alarm]:
        """List the alarms that hold (`with_cleared`: all that are kept), newest first."""
        query = {"truck": truck, "all": "true" if with_cleared else None}
        return await self.list_all("/v1/alarms", AlarmPage, query, limit)

    async def acknowledge_alarm(self, identity: int) -> Alarm:
        """Say that an alarm was seen."""
        return decode(await self.call("POST", f"/v1/alarms/{identity}/acknowledge"), Alarm)

"""Quotes: what a bundle version would cost each truck over each of its links, before anybody commits to it.

The pack from what a truck holds to the version is really made (once for all trucks with the same history; it is the one
that they will fetch); around it the wire's own overhead, the losses of the link, the tariff with its rounding, and the
time that budget and contacts leave. While a pack is being made the files' size stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Annotated

import structlog
from msgspec import Meta

from gateway.api.auth import SIGNER
from gateway.api.bundles import Label, known_bundle, manifest_of
from gateway.api.limits import PAGE_ITEMS, PAGE_ITEMS_MAX, PAGE_ITEMS_SERVED
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Bytes, Cursor, Limit, MoneyMilli, Shape
from gateway.api.trucks import known_truck
from gateway.bearers import bearers_of
from gateway.budgets import LinkBudget
from gateway.fleetbudgets import budgets_of
from gateway.quoting import (
    Bearer,
    billed_of,
    days_of_budget,
    days_of_contact,
    money_milli,
    receipts_bytes,
    transfer_s,
    wire_of,
)
from protocol.documents import Manifest
from protocol.errors import PeerError
from protocol.messages import PackRequest
from protocol.numbers import HELD_MANIFESTS_MAX, DocumentKind, Outcome, Precedence
from protocol.pack.profile import own_profile
from protocol.wire import Name
from store.fleet.records import TruckRecord

log = structlog.get_logger("gateway.api.quotes")

# Signed, for one truck or a group.
_ROLLOUT_BYTES = 300
# Packs that one request sets going; the rest are quoted by the size of their files.
_PACKS_MAX = 8


class QuoteRequest(Shape, frozen=True):
    """Which bundle version, for which trucks: by name, or all of one group (then `after` continues a long one)."""

    bundle: Name
    version: Label
    trucks: Annotated[list[Name], Meta(max_length=PAGE_ITEMS_MAX)] | None = None
    group: Name | None = None
    limit: Limit = PAGE_ITEMS
    after: Cursor | None = None


class LinkQuote(Shape, frozen=True):
    """One link. `fits` tells whether the period's budget (less its reserve) still holds it.

    Money is 0 where no price is known (`is_priced`). `transfer_s` is how long it takes while the link is there, `days`
    until it is through, by the link's contacts and budget; `loss_up` and `loss_down` are shares. All of them are null
    where nothing is known. The last two say what a stick would save.
    """

    link: str
    wire_bytes: Bytes
    billed_bytes: Bytes
    money_milli: MoneyMilli
    currency: str
    is_priced: bool
    fits: bool
    transfer_s: int | None
    days: float | None
    loss_up: float | None
    loss_down: float | None
    usb_saves_bytes: Bytes
    usb_saves_milli: MoneyMilli


class TruckQuote(Shape, frozen=True):
    """One truck: bytes of files that it does not hold, the pack that brings them, and its cost over each link.

    Null `pack_bytes`: it could not be made, and the files' size stands for it; or it is being made (`making`): ask
    again in some seconds.
    """

    truck: str
    file_bytes: Bytes
    files: int
    pack_bytes: Bytes | None
    making: bool
    links: list[LinkQuote]


class Quote(Shape, frozen=True):
    """A bundle version's cost for a page of trucks."""

    bundle: str
    version: str
    items: list[TruckQuote]
    next: str | None


@dataclass(slots=True)
class Quoting:
    """One bundle version that is quoted: what is read or made once for all trucks."""

    digest: bytes
    manifest: Manifest
    manifest_bytes: int
    held: dict[bytes, frozenset[bytes]] = field(default_factory=dict)
    packs: dict[tuple[bytes, ...], tuple[int | None, bool]] = field(default_factory=dict)


@operation("POST", "/v1/quotes", tag="rollouts", needs=SIGNER, changes=False, problems=(404,))
async def create_quote(call: Call, body: QuoteRequest) -> Quote:
    """Say what a bundle version would cost; changes nothing."""
    record = await known_bundle(call, body.bundle, body.version)
    quoting = await quoting_of(call, record.manifest)
    trucks, following = await _trucks(call, body)
    items = [await quote_of(call, truck, quoting) for truck in trucks]
    return Quote(bundle=body.bundle, version=body.version, items=items, next=following)


async def quoting_of(call: Call, digest: bytes) -> Quoting:
    """Return the beginning of a quote of a manifest."""
    record = await call.api.fleet.document(digest)
    return Quoting(digest, await manifest_of(call, digest), 0 if record is None else len(record.signed))


async def _trucks(call: Call, body: QuoteRequest) -> tuple[list[TruckRecord], str | None]:
    if (body.trucks is None) == (body.group is None):
        raise Problem(400, "name either `trucks` or a `group`")
    if body.trucks is not None:
        return [await known_truck(call, name) for name in sorted(set(body.trucks))], None
    limit = min(body.limit, PAGE_ITEMS_SERVED)
    found = await call.api.fleet.trucks(after=body.after, limit=limit + 1, group=body.group)
    return found[:limit], found[limit - 1].name if len(found) > limit else None


async def quote_of(call: Call, truck: TruckRecord, quoting: Quoting) -> TruckQuote:
    """Return what a bundle version would cost one truck."""
    bases = await _bases(call, truck, quoting)
    held = frozenset[bytes]().union(*(quoting.held[digest] for digest in bases))
    wanted = {file.digest: file.size for file in quoting.manifest.files if file.digest not in held}
    size = sum(wanted.values())
    pack, making = await _pack(call, quoting, bases) if wanted else (0, False)
    now_ms = call.api.services.now_ms()
    budgets = (await budgets_of(call.api.fleet, [truck], now_ms))[truck.name]
    bearers = await bearers_of(call.api.fleet, truck, now_ms)
    links = []
    for budget in budgets:
        bearer = bearers.get(budget.plan.link, Bearer())
        wire_bytes = size if pack is None else pack
        links.append(await _link_quote(call, truck, budget, bearer, quoting, wire_bytes))
    return TruckQuote(
        truck=truck.name,
        file_bytes=size,
        files=len(wanted),
        pack_bytes=pack,
        making=making,
        links=links,
    )


async def _bases(call: Call, truck: TruckRecord, quoting: Quoting) -> tuple[bytes, ...]:
    """Return the manifests that a truck holds by its receipts, in the order in which it would name them."""
    held = []
    for each in await call.api.fleet.holdings(truck.name):
        if each.document is not DocumentKind.MANIFEST or each.outcome is not Outcome.APPLIED:
            continue
        if each.digest not in quoting.held:
            known = await call.api.fleet.bundle_of_manifest(each.digest)
            files = (await manifest_of(call, each.digest)).files if known is not None else ()
            quoting.held[each.digest] = frozenset(file.digest for file in files)
        if quoting.held[each.digest]:
            held.append(each)
    held.sort(key=lambda each: (each.name != quoting.manifest.name, each.name))
    return tuple(each.digest for each in held)[:HELD_MANIFESTS_MAX]


async def _pack(call: Call, quoting: Quoting, bases: tuple[bytes, ...]) -> tuple[int | None, bool]:
    """Return the size of the pack from what is held to the manifest, or None and whether it is being made."""
    offer = call.api.services.offer_pack
    if offer is None:
        return None, False
    if bases not in quoting.packs:
        if len(quoting.packs) >= _PACKS_MAX:
            return None, True
        try:
            made = await offer(PackRequest(quoting.digest, bases, own_profile().encode()))
            quoting.packs[bases] = (None, True) if made.digest is None else (made.size, False)
        except (PeerError, OSError, BrokenProcessPool) as error:
            # Files that were not pushed yet, a full disk, a worker that was killed: a rough quote is better than none.
            log.warning("quote.no_pack", bundle=quoting.manifest.name, reason=str(error))
            quoting.packs[bases] = None, False
    return quoting.packs[bases]


async def _link_quote(
    call: Call, truck: TruckRecord, budget: LinkBudget, bearer: Bearer, quoting: Quoting, pack_bytes: int
) -> LinkQuote:
    terms, now_ms = budget.plan.terms, call.api.services.now_ms()
    wire = wire_of(pack_bytes, quoting.manifest_bytes, _ROLLOUT_BYTES, bearer)
    by_contact = days_of_contact(wire, bearer)
    sessions = max(1, round(by_contact or 1))
    billed = billed_of(terms.tariff, wire, sessions)
    cost = money_milli(terms.tariff, billed, sessions, billed_before=budget.used_bytes) if terms.is_priced else 0
    spent = await _spent(call, truck, budget)
    by_budget = days_of_budget(budget, spent, billed, Precedence.BULK, now_ms)
    return LinkQuote(
        link=budget.plan.link,
        wire_bytes=wire.bytes,
        billed_bytes=billed,
        money_milli=cost,
        currency=terms.tariff.currency,
        is_priced=terms.is_priced,
        fits=_fits(budget, billed, cost),
        transfer_s=transfer_s(wire, bearer),
        days=None if by_budget is None else max(by_budget, by_contact or 0.0),
        loss_up=bearer.loss_up,
        loss_down=bearer.loss_down,
        usb_saves_bytes=max(0, wire.bytes - receipts_bytes()),
        usb_saves_milli=cost * max(0, wire.bytes - receipts_bytes()) // max(1, wire.bytes),
    )


def _fits(budget: LinkBudget, billed: int, cost: int) -> bool:
    terms = budget.plan.terms
    in_bytes = budget.left_bytes is None or billed <= budget.left_bytes - terms.reserve_bytes
    in_money = budget.left_milli is None or cost <= budget.left_milli - terms.reserve_milli
    return in_bytes and in_money


async def _spent(call: Call, truck: TruckRecord, budget: LinkBudget) -> Mapping[Precedence, int]:
    if budget.plan.terms.bytes_max is None and budget.plan.terms.money_max_milli is None:
        return {}
    spent: dict[Precedence, int] = {}
    for each in await call.api.fleet.ledger(truck.name, budget.plan.start_ms, budget.plan.end_ms):
        if each.link == budget.plan.link:
            spent[each.precedence] = spent.get(each.precedence, 0) + each.billed_bytes
    return spent


OPERATIONS = (create_quote,)

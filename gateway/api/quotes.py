"""Quotes: what a bundle version would cost each truck over each of its links, before anybody commits to it.

Simple on purpose: the bytes of the files that the truck does not hold in any bundle it said it applied, plus the wire's
own overhead, at the price in the truck's configuration. What packing saves on top makes it cheaper, never dearer.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway.api.auth import SIGNER
from gateway.api.bundles import Label, known_bundle, manifest_of
from gateway.api.limits import PAGE_ITEMS, PAGE_ITEMS_MAX, PAGE_ITEMS_SERVED
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Bytes, Cursor, Limit, MoneyMilli, Shape
from gateway.api.trucks import known_truck
from gateway.budgets import LinkBudget, price_milli
from gateway.fleetbudgets import budgets_of
from protocol.documents import Manifest
from protocol.numbers import PIECE_BYTES, DocumentKind, Outcome
from protocol.wire import Name
from store.fleet.records import TruckRecord

# IPv6, UDP, CoAP and OSCORE around a piece, and the share of a request that asks for several.
_OVERHEAD_BYTES = 100


class QuoteRequest(Shape, frozen=True):
    """Which bundle version, for which trucks: by name, or all of one group (then `after` continues a long one)."""

    bundle: Name
    version: Label
    trucks: Annotated[list[Name], Meta(max_length=PAGE_ITEMS_MAX)] | None = None
    group: Name | None = None
    limit: Limit = PAGE_ITEMS
    after: Cursor | None = None


class LinkQuote(Shape, frozen=True):
    """One link. `fits` tells whether this month's budget (less its reserve) still holds it."""

    link: str
    wire_bytes: Bytes
    money_milli: MoneyMilli
    currency: str
    fits: bool


class TruckQuote(Shape, frozen=True):
    """One truck: bytes of files that it does not hold, and what they cost over each link that it has."""

    truck: str
    file_bytes: Bytes
    files: int
    links: list[LinkQuote]


class Quote(Shape, frozen=True):
    """A bundle version's cost for a page of trucks."""

    bundle: str
    version: str
    items: list[TruckQuote]
    next: str | None


@operation("POST", "/v1/quotes", tag="rollouts", needs=SIGNER, changes=False, problems=(404,))
async def create_quote(call: Call, body: QuoteRequest) -> Quote:
    """Say what a bundle version would cost; changes nothing."""
    record = await known_bundle(call, body.bundle, body.version)
    manifest = await manifest_of(call, record.manifest)
    trucks, following = await _trucks(call, body)
    holders: dict[bytes, frozenset[bytes]] = {}
    items = [await quote_of(call, truck, manifest, holders) for truck in trucks]
    return Quote(bundle=body.bundle, version=body.version, items=items, next=following)


def wire_bytes(file_bytes: int) -> int:
    """Return what files cost on the wire without loss: pieces of 1 KiB and what surrounds each."""
    return file_bytes + -(-file_bytes // PIECE_BYTES) * _OVERHEAD_BYTES


async def _trucks(call: Call, body: QuoteRequest) -> tuple[list[TruckRecord], str | None]:
    if (body.trucks is None) == (body.group is None):
        raise Problem(400, "name either `trucks` or a `group`")
    if body.trucks is not None:
        return [await known_truck(call, name) for name in sorted(set(body.trucks))], None
    limit = min(body.limit, PAGE_ITEMS_SERVED)
    found = await call.api.fleet.trucks(after=body.after, limit=limit + 1, group=body.group)
    return found[:limit], found[limit - 1].name if len(found) > limit else None


async def quote_of(
    call: Call, truck: TruckRecord, manifest: Manifest, holders: dict[bytes, frozenset[bytes]]
) -> TruckQuote:
    """Return what a manifest would cost one truck; `holders` is shared by calls for several trucks."""
    held = await _held(call, truck, holders)
    wanted = {file.digest: file.size for file in manifest.files if file.digest not in held}
    size = sum(wanted.values())
    on_wire = wire_bytes(size)
    budgets = await budgets_of(call.api.fleet, [truck], call.api.services.now_ms())
    links = [_link_quote(each, on_wire) for each in budgets[truck.name]]
    return TruckQuote(truck=truck.name, file_bytes=size, files=len(wanted), links=links)


async def _held(call: Call, truck: TruckRecord, holders: dict[bytes, frozenset[bytes]]) -> set[bytes]:
    """Return the digests of all files that a truck holds by its receipts; `holders` spares reading a manifest twice."""
    held: set[bytes] = set()
    for each in await call.api.fleet.holdings(truck.name):
        if each.document is not DocumentKind.MANIFEST or each.outcome is not Outcome.APPLIED:
            continue
        if each.digest not in holders:
            known = await call.api.fleet.bundle_of_manifest(each.digest)
            files = (await manifest_of(call, each.digest)).files if known is not None else ()
            holders[each.digest] = frozenset(file.digest for file in files)
        held |= holders[each.digest]
    return held


def _link_quote(budget: LinkBudget, on_wire: int) -> LinkQuote:
    terms = budget.plan.terms
    spendable = None if budget.left_bytes is None else max(0, budget.left_bytes - terms.reserve_bytes)
    return LinkQuote(
        link=budget.plan.link,
        wire_bytes=on_wire,
        money_milli=price_milli(on_wire, terms.tariff.price_per_mb_milli),
        currency=terms.tariff.currency,
        fits=spendable is None or on_wire <= spendable,
    )


OPERATIONS = (create_quote,)

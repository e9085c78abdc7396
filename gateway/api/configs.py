"""A truck's configuration: the newest one that is for it, what it says, and what the truck did with it."""

from __future__ import annotations

from gateway.api.auth import VIEWER
from gateway.api.documents import DocumentShape, document_shape, read_stored
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Bytes, Shape, TruckPath
from gateway.api.trucks import known_truck, outcome_name
from protocol.documents import Config
from protocol.numbers import DocumentKind
from store.fleet.records import HoldingRecord, TruckRecord


class CollectorShape(Shape, frozen=True):
    """One collector; a period of 0 switches it off."""

    name: str
    period_s: int


class LinkShape(Shape, frozen=True):
    """The budget of one link; null bytes mean no cap. The price is thousandths of the currency a million bytes."""

    name: str
    month_bytes_max: Bytes | None
    reserve_bytes: Bytes
    price_per_mb_milli: int
    currency: str


class ConfigShape(Shape, frozen=True):
    """A configuration, and the outcome of the truck's newest receipt for it (null: none came yet)."""

    document: DocumentShape
    batch_age_s: int | None
    collectors: list[CollectorShape]
    links: list[LinkShape]
    confirm_within_s: int | None
    extra: dict[str, int | bool | str]
    outcome: str | None
    reason: str


@operation("GET", "/v1/trucks/{truck}/config", tag="documents", needs=VIEWER)
async def get_config(call: Call, path: TruckPath) -> ConfigShape:
    """Show the newest configuration that is for a truck."""
    truck = await known_truck(call, path.truck)
    record = await call.api.fleet.newest_config(truck.name, truck.group)
    if record is None:
        raise Problem(404, "no configuration was put for this truck; it runs with its local settings")
    config = await read_stored(record, Config)
    held = _held(await call.api.fleet.holdings(truck.name), record.digest)
    return ConfigShape(
        document=document_shape(record),
        batch_age_s=config.batch_age_s,
        collectors=[CollectorShape(name=each.name, period_s=each.period_s) for each in config.collectors],
        links=[
            LinkShape(
                name=each.name,
                month_bytes_max=each.month_bytes_max,
                reserve_bytes=each.reserve_bytes,
                price_per_mb_milli=each.price_per_mb_milli,
                currency=each.currency,
            )
            for each in config.links
        ],
        confirm_within_s=config.confirm_within_s,
        extra=dict(config.extra),
        outcome=None if held is None else outcome_name(held.outcome.name),
        reason="" if held is None else held.reason,
    )


async def config_of(call: Call, truck: TruckRecord) -> Config | None:
    """Return what the newest configuration for a truck says, None if there is none."""
    record = await call.api.fleet.newest_config(truck.name, truck.group)
    return None if record is None else await read_stored(record, Config)


def _held(holdings: list[HoldingRecord], digest: bytes) -> HoldingRecord | None:
    return next(
        (each for each in holdings if each.document is DocumentKind.CONFIG and each.digest == digest),
        None,
    )


OPERATIONS = (get_config,)

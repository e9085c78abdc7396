"""The HTTP API as one aiohttp application: every declared operation on its route, behind one guard."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import msgspec
from aiohttp import web

from gateway.api import (
    accounts,
    alarms,
    audit,
    bills,
    blobs,
    budgets,
    bundles,
    configs,
    coverage,
    documents,
    enrolments,
    evidence,
    health,
    history,
    ledger,
    links,
    pools,
    proof,
    quotes,
    reports,
    rollouts,
    samples,
    signin,
    sticks,
    stream,
    tokens,
    trucks,
    webhooks,
)
from gateway.api.bodies import defer_continue
from gateway.api.context import API, Api
from gateway.api.dispatch import endpoint, guard
from gateway.api.fleetmetrics import FleetMetrics
from gateway.api.limits import ApiLimits
from gateway.api.metrics import ApiMetrics
from gateway.api.openapi import build_openapi
from gateway.api.operations import Operation
from gateway.api.ratelimit import TokenBuckets
from gateway.api.reference import render_reference
from gateway.api.services import Services
from store.blobs import BlobStore
from store.fleet.fleet import FleetStore

OPERATIONS: tuple[Operation, ...] = (
    *trucks.OPERATIONS,
    *enrolments.OPERATIONS,
    *samples.OPERATIONS,
    *evidence.OPERATIONS,
    *coverage.OPERATIONS,
    *proof.OPERATIONS,
    *documents.OPERATIONS,
    *configs.OPERATIONS,
    *bundles.OPERATIONS,
    *blobs.OPERATIONS,
    *quotes.OPERATIONS,
    *reports.OPERATIONS,
    *rollouts.OPERATIONS,
    *ledger.OPERATIONS,
    *budgets.OPERATIONS,
    *pools.OPERATIONS,
    *accounts.OPERATIONS,
    *history.OPERATIONS,
    *bills.OPERATIONS,
    *alarms.OPERATIONS,
    *sticks.OPERATIONS,
    *webhooks.OPERATIONS,
    *stream.OPERATIONS,
    *tokens.OPERATIONS,
    *signin.OPERATIONS,
    *links.OPERATIONS,
    *audit.OPERATIONS,
    *health.OPERATIONS,
)


def make_app(
    fleet: FleetStore, blob_store: BlobStore, services: Services, *, limits: ApiLimits | None = None
) -> web.Application:
    """Return the application; serve it with `gateway.api.server.start_api`, which also caps connections."""
    limits = limits or ApiLimits()
    openapi, reference = _descriptions()
    app = web.Application(middlewares=[guard], client_max_size=limits.json_bytes_max)
    app[API] = Api(
        fleet=fleet,
        blobs=blob_store,
        services=services,
        limits=limits,
        metrics=ApiMetrics(services.registry),
        fleet_metrics=FleetMetrics(fleet, now_ms=services.now_ms, monotonic=time.monotonic),
        by_address=TokenBuckets(rate=limits.address_rate, burst=limits.address_burst, keys_max=limits.buckets_max),
        by_token=TokenBuckets(rate=limits.token_rate, burst=limits.token_burst, keys_max=limits.buckets_max),
        streams=asyncio.Semaphore(limits.streams_max),
        exports=asyncio.Semaphore(limits.exports_max),
        closing=asyncio.Event(),
        uploading=set(),
        openapi=openapi,
        reference=reference,
    )
    app.on_shutdown.append(_close_streams)
    for each in OPERATIONS:
        app.router.add_route(each.method, each.path, endpoint(each), expect_handler=defer_continue)
    return app


@cache
def _descriptions() -> tuple[bytes, str]:
    """Return the OpenAPI document and the docs page; they only change with the code."""
    document = build_openapi(OPERATIONS, version=_version())
    return msgspec.json.encode(document), render_reference(OPERATIONS, document)


async def _close_streams(app: web.Application) -> None:
    app[API].closing.set()


def _version() -> str:
    try:
        return version("digitruck")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0"

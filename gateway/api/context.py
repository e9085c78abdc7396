"""What every handler of the API can reach: the fleet's data, the blobs, the injected services and the limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from gateway.api.fleetmetrics import FleetMetrics
from gateway.api.limits import ApiLimits
from gateway.api.metrics import ApiMetrics
from gateway.api.ratelimit import TokenBuckets
from gateway.api.services import Services
from store.blobs import BlobStore
from store.fleet.fleet import FleetStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The API's surroundings, made once by `make_app`."""

    fleet: FleetStore
    blobs: BlobStore
    services: Services
    limits: ApiLimits
    metrics: ApiMetrics
    fleet_metrics: FleetMetrics
    by_address: TokenBuckets
    by_token: TokenBuckets
    streams: asyncio.Semaphore  # how many event streams may be open
    exports: asyncio.Semaphore  # how many files of telemetry or evidence may be written at a time
    closing: asyncio.Event  # set when the gateway stops, so that streams end
    uploading: set[bytes]  # blobs that a request is writing now
    openapi: bytes
    reference: str


API = web.AppKey("api", Api)

"""Is it alive, is it ready, what does it count; and the two descriptions of the API itself."""

from __future__ import annotations

import asyncio
from typing import Literal

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.api.auth import VIEWER
from gateway.api.operations import JSON, Call, operation
from gateway.api.problem import Problem
from gateway.api.reference import CONTENT_SECURITY_POLICY
from gateway.api.shapes import Shape

_READY_S = 2.0
_METRICS = CONTENT_TYPE_LATEST.partition(";")[0]


class Health(Shape, frozen=True):
    """The gateway answers. While `trust` is `attention`, `GET /v1/trust` says what keeps it from working."""

    status: str
    trust: Literal["ok", "attention"]


def _trust(call: Call) -> Literal["ok", "attention"]:
    state = None if call.api.services.trust is None else call.api.services.trust()
    return "attention" if state is not None and state.warnings else "ok"


@operation("GET", "/healthz", tag="health", needs=None)
async def get_health(call: Call) -> Health:
    """Say that the process answers."""
    return Health(status="ok", trust=_trust(call))


@operation("GET", "/readyz", tag="health", needs=None, problems=(503,))
async def get_ready(call: Call) -> Health:
    """Say whether the database answers, too.

    A load balancer takes this gateway out while the answer is 503.
    """
    try:
        async with asyncio.timeout(_READY_S):
            await call.api.fleet.ping()
    except Exception as error:  # whatever keeps the database from answering
        raise Problem(503, "the database does not answer", headers={"Retry-After": "5"}) from error
    return Health(status="ready", trust=_trust(call))


@operation("GET", "/metrics", tag="health", needs=VIEWER, media=(_METRICS,))
async def get_metrics(call: Call) -> web.Response:
    """Count for Prometheus: the API itself, and the fleet with the newest value of every channel.

    A scraper signs in like everybody else: `digitruck metrics setup` writes its configuration.
    """
    text = generate_latest(call.api.metrics.registry) + await call.api.fleet_metrics.text()
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@operation("GET", "/v1/openapi.json", tag="health", needs=None, media=(JSON,))
async def get_openapi(call: Call) -> web.Response:
    """Describe this API for programs (OpenAPI 3.1)."""
    return web.Response(body=call.api.openapi, content_type=JSON, charset="utf-8")


@operation("GET", "/v1/docs", tag="health", needs=None, media=("text/html",))
async def get_docs(call: Call) -> web.Response:
    """Describe this API for people."""
    response = web.Response(text=call.api.reference, content_type="text/html", charset="utf-8")
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


OPERATIONS = (get_health, get_ready, get_metrics, get_openapi, get_docs)

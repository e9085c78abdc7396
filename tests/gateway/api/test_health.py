"""Alive, ready, counted, described."""

import json

from tests.gateway.api.conftest import Gateway


async def test_liveness_needs_no_token_and_no_database(gateway: Gateway) -> None:
    gateway.fleet.fault = OSError("the disk is gone")
    answer = await gateway.get("/healthz", role=None)
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})

"""Alive, ready, counted, described."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.auth import Role
from gateway.api.services import TrustState
from gateway.ownkeys import make_keys
from tests.gateway.api.conftest import Gateway, Opener


async def test_liveness_needs_no_token_and_no_database(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.fleet, "_database", None)
    answer = await gateway.get("/healthz", role=None)
    assert (answer.status, answer.json) == (200, {"status": "ok", "trust": "ok"})


async def test_trust_that_needs_a_person_shows_and_tells_strangers_nothing_more(
    open_gateway: Opener, tmp_path: Path
) -> None:
    keys = make_keys(tmp_path / "keys")
    async with open_gateway(trust=lambda: TrustState(keys, ["ke-arrow knows root 3"], frozenset())) as gateway:
        for path in ("/healthz", "/readyz"):
            answer = await gateway.get(path, role=None)
            assert (answer.status, answer.json["trust"]) == (200, "attention")
            assert b"ke-arrow" not in answer.body


async def test_readiness_follows_the_database(open_gateway: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_gateway() as gateway:
        assert (await gateway.get("/readyz", role=None)).status == 200

        async def gone() -> None:
            raise OSError("disk on fire at /var/lib/secret")

        monkeypatch.setattr(gateway.fleet, "ping", gone)
        answer = await gateway.get("/readyz", role=None)
        assert answer.status == 503
        assert b"secret" not in answer.body


async def test_metrics_count_by_route_and_not_by_address(gateway: Gateway) -> None:
    for _ in range(3):
        await gateway.get("/v1/trucks/nobody-here")
    await gateway.get("/wp-login.php", role=None)
    answer = await gateway.get("/metrics", role=Role.VIEWER)
    families = {each.name: each for each in text_string_to_metric_families(answer.body.decode())}
    counted = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["digitruck_api_requests"].samples
        if sample.name.endswith("_total")
    }
    assert counted["/v1/trucks/{truck}", "404"] == 3
    assert counted["none", "404"] == 1
    assert b"wp-login" not in answer.body
    assert b"nobody-here" not in answer.body


async def test_metrics_are_not_for_strangers(gateway: Gateway) -> None:
    assert (await gateway.get("/metrics", role=None)).status == 401

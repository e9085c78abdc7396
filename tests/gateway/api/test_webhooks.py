"""Webhooks by the API: https or this machine itself, kinds that exist, a secret that is shown once."""

from __future__ import annotations

import base64

import pytest

from tests.gateway.api.conftest import Gateway


async def test_a_webhook_is_made_listed_and_deleted(gateway: Gateway) -> None:
    body = {"url": "https://ops.example.org/hook", "kinds": ["rollout", "alarm", "alarm"]}
    made = (await gateway.ask("POST", "/v1/webhooks", json=body)).json
    assert made["kinds"] == ["alarm", "rollout"]
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"))) == 32
    listed = (await gateway.get("/v1/webhooks")).json["items"]
    assert listed == [{key: value for key, value in made.items() if key != "secret"}]
    assert (await gateway.get(f"/v1/webhooks/{made['id']}/deliveries")).json["items"] == []
    assert (await gateway.ask("DELETE", f"/v1/webhooks/{made['id']}")).status == 200
    assert (await gateway.ask("DELETE", f"/v1/webhooks/{made['id']}")).status == 404


@pytest.mark.parametrize(
    "url", ["http://ops.example.org/", "ftp://x/", "https://", "file:///etc/passwd", "http://10.0.0.1/", "https://a b/"]
)
async def test_an_address_that_can_be_read_on_the_way_is_refused(gateway: Gateway, url: str) -> None:
    assert (await gateway.ask("POST", "/v1/webhooks", json={"url": url})).status == 400


async def test_a_kind_that_does_not_exist_is_named(gateway: Gateway) -> None:
    answer = await gateway.ask("POST", "/v1/webhooks", json={"url": "https://x.example.org", "kinds": ["alarms"]})
    assert answer.status == 422
    assert "alarms" in answer.json["detail"]
    assert "rollout" in answer.json["detail"]

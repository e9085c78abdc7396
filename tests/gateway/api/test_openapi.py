"""The document describes the API that is there: every route, and every answer as it comes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.api.app import OPERATIONS
from gateway.api.openapi import problems_of
from gateway.api.operations import JSON, Operation
from gateway.api.signin import CallbackQuery
from protocol import cose
from tests.gateway.api.conftest import LOGIN, LOGIN_SECRET, OCTETS, Answer, Gateway, World
from tests.gateway.fleets import add_truck, carried


async def document(gateway: Gateway) -> dict[str, Any]:
    answer = await gateway.get("/v1/openapi.json", role=None)
    assert (answer.status, answer.media) == (200, JSON)
    return json.loads(answer.body)


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(each) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(references(each) for each in value))
    return set()


async def test_every_route_is_described_and_nothing_else(gateway: Gateway) -> None:
    described = await document(gateway)
    routes = {(method.upper(), path) for path, item in described["paths"].items() for method in item}
    assert routes == {(each.method, each.path) for each in OPERATIONS}
    assert described["openapi"] == "3.1.0"
    names = [op["operationId"] for item in described["paths"].values() for op in item.values()]
    assert len(names) == len(set(names))


async def test_every_reference_leads_somewhere_and_every_schema_is_used(gateway: Gateway) -> None:
    described = await document(gateway)
    schemas = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert references(described) == schemas


async def test_every_operation_says_what_it_needs_and_what_it_answers(gateway: Gateway) -> None:
    described = await document(gateway)
    for each in OPERATIONS:
        op = described["paths"][each.path][each.method.lower()]
        assert op["summary"], each.path
        in_path = {part[1:-1] for part in each.path.split("/") if part.startswith("{")}
        assert {p["name"] for p in op["parameters"] if p["in"] == "path"} == in_path
        assert op["security"] == ([] if each.needs is None else [{"token": []}, {"session": []}])
        if each.needs is not None:
            assert {"401", "403"} <= set(op["responses"])
        assert set(op["responses"]) >= {str(each.status), "429", "500"}


def test_structs_refuse_unknown_fields() -> None:
    for each in OPERATIONS:
        for struct in (each.path_type, each.query_type, each.body_type, each.answer_type):
            # What the identity provider sends back is its own.
            if struct is not None and struct not in (bytes, CallbackQuery):
                assert struct.__struct_config__.forbid_unknown_fields, struct


def test_every_listing_takes_limit_and_after_and_names_the_next_page() -> None:
    for each in OPERATIONS:
        if each.answer_type is not None and "items" in each.answer_type.__struct_fields__:
            asked = each.body_type if each.method == "POST" else each.query_type
            assert {"limit", "after"} <= set(asked.__struct_fields__), each.path
            assert "next" in each.answer_type.__struct_fields__, each.path


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "list_trucks": ("/v1/trucks?limit=1&group=kenya", {}),
    "get_truck": ("/v1/trucks/ke-arrow", {}),
    "revoke_truck": ("/v1/trucks/ke-arrow", {}),
    "create_enrolment": ("/v1/enrolments", {"json": {"truck": "tz-arrow", "group": "tanzania"}}),
    "list_enrolments": ("/v1/enrolments", {}),
    "get_samples": ("/v1/trucks/ke-arrow/samples?channels=bat_v,pv_w", {}),
    "list_events": ("/v1/trucks/ke-arrow/events", {}),
    "list_receipts": ("/v1/trucks/ke-arrow/receipts", {}),
    "get_coverage": ("/v1/trucks/ke-arrow/coverage", {}),
    "get_evidence": ("/v1/trucks/ke-arrow/evidence", {}),
    "get_verification": ("/v1/trucks/ke-arrow/verification", {}),
    "put_document": ("/v1/documents", {"headers": {"Content-Type": "application/cose"}}),
    "list_documents": ("/v1/documents?kind=config", {}),
    "get_document": ("/v1/documents/{config}", {}),
    "get_trust": ("/v1/trust", {}),
    "get_config": ("/v1/trucks/ke-arrow/config", {}),
    "list_bundles": ("/v1/bundles", {}),
    "get_bundle": ("/v1/bundles/maths/v1?missing=true", {}),
    "head_blob": ("/v1/blobs/{blob}", {}),
    "get_blob": ("/v1/blobs/{blob}", {}),
    "put_blob": ("/v1/blobs/2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", {"data": b"x"}),
    "create_quote": ("/v1/quotes", {"json": {"bundle": "maths", "version": "v1", "trucks": ["ke-arrow"]}}),
    "create_rollout": ("/v1/rollouts", {"headers": {"Content-Type": "application/cose"}}),
    "list_rollouts": ("/v1/rollouts", {}),
    "get_rollout": ("/v1/rollouts/{rollout}", {}),
    "roll_back": ("/v1/rollouts/{rollout}/rollback", {"headers": {"Content-Type": "application/cose"}}),
    "act_on_rollout": ("/v1/rollouts/{second}/abort", {}),
    "list_ledger": ("/v1/ledger?step=3600", {}),
    "list_truck_ledger": ("/v1/trucks/ke-arrow/ledger", {}),
    "list_budgets": ("/v1/budgets", {}),
    "reconcile_bill": (
        "/v1/trucks/ke-arrow/bills",
        {"json": {"link": "lte", "lines": [{"since_ms": 0, "until_ms": 3_600_000, "bytes": 0}]}},
    ),
    "list_bills": ("/v1/trucks/ke-arrow/bills", {}),
    "get_account": ("/v1/trucks/ke-arrow/account", {}),
    "get_history": ("/v1/trucks/ke-arrow/history", {}),
    "list_pools": ("/v1/pools?group=kenya", {}),
    "list_alarms": ("/v1/alarms?all=true", {}),
    "get_impact": ("/v1/reports/impact?by=group", {}),
    "create_webhook": ("/v1/webhooks", {"json": {"url": "https://ops.example.org/hook", "kinds": ["alarm"]}}),
    "list_webhooks": ("/v1/webhooks", {}),
    "list_deliveries": ("/v1/webhooks/1/deliveries", {}),
    "delete_webhook": ("/v1/webhooks/1", {}),
    "acknowledge_alarm": ("/v1/alarms/1/acknowledge", {}),
    "get_budget": ("/v1/trucks/ke-arrow/budget", {}),
    "create_stick": ("/v1/sticks", {"json": {"trucks": ["cd-kinshasa"]}}),
    "list_sticks": ("/v1/sticks", {}),
    "get_stick": ("/v1/sticks/{stick}", {}),
    "revoke_stick": ("/v1/sticks/{stick}", {}),
    "take_carried": ("/v1/carried", {"headers": OCTETS}),
    "get_session": ("/v1/session", {}),
    "list_tokens": ("/v1/tokens", {}),
    "create_token": ("/v1/tokens", {"json": {"name": "amina", "role": "viewer"}}),
    "create_link": ("/v1/session/link", {}),
    "revoke_token": ("/v1/tokens/the-viewer", {}),
    "begin_login": ("/v1/session/login", {}),
    "end_login": (
        f"/v1/session/callback?state={LOGIN.state}&code={LOGIN.nonce}&session_state=theirs",
        {"headers": {"Cookie": f"digitruck-login={LOGIN_SECRET}"}},
    ),
    "end_session": ("/v1/session", {}),
    "list_audit": ("/v1/audit", {}),
    "check_audit": ("/v1/audit/check", {}),
    "get_health": ("/healthz", {}),
    "get_ready": ("/readyz", {}),
    "get_metrics": ("/metrics", {}),
    "get_openapi": ("/v1/openapi.json", {}),
    "get_docs": ("/v1/docs", {}),
}


async def request(world: World, operation: Operation) -> Answer:
    path, kwargs = REQUESTS[operation.name]
    stick = ""
    if operation.tag == "sticks":
        known = await world.gateway.fleet.sticks()
        stick = known[0].stick.hex() if known else ""
    second, third = (world.gateway.signers.rollout(world.manifest, version=version) for version in (2, 3))
    filled = path.format(
        stick=stick,
        config=world.config.hex(),
        blob=world.blob.hex(),
        rollout=world.rollout.hex(),
        second=cose.digest(second).hex(),
        manifest=world.manifest.hex(),
    )
    kwargs = dict(kwargs)
    if operation.name == "put_document":
        kwargs["data"] = world.gateway.signers.config(2)
    if operation.name == "create_rollout":
        kwargs["data"] = second
    if operation.name == "roll_back":
        kwargs["data"] = third
    if operation.name == "take_carried":
        kwargs["data"] = carried("cd-kinshasa", world.gateway.keys)
    if operation.name == "put_blob":
        kwargs["headers"] = OCTETS
    return await world.gateway.ask(operation.method, filled, **kwargs)


async def test_every_answer_is_what_its_operation_declares(world: World) -> None:
    await add_truck(world.gateway.fleet, "cd-kinshasa")
    await world.truck.event("ledger.account", values_json='{"sat.2u":1250}')
    for each in OPERATIONS:
        if each.name == "get_stream":
            continue  # never ends; test_stream reads it
        answer = await request(world, each)
        assert answer.status == each.status, (each.name, answer.body)
        if each.media:
            assert answer.media in each.media, each.name
        if each.answer_type is not None and answer.media == JSON:
            msgspec.json.decode(answer.body, type=each.answer_type, strict=True)


async def test_every_change_is_in_the_audit_log_once(world: World) -> None:
    await add_truck(world.gateway.fleet, "cd-kinshasa")
    await world.truck.event("ledger.account", values_json='{"sat.2u":1250}')
    for each in OPERATIONS:
        if each.name == "get_stream":
            continue
        before = await world.gateway.fleet.audit_log(limit=1000)
        assert (await request(world, each)).status == each.status
        after = await world.gateway.fleet.audit_log(limit=1000)
        # A rollback starts one rollout and ends another.
        changes = 2 if each.name == "roll_back" else 1
        assert len(after) - len(before) == (changes if each.changes else 0), each.name
        who = "oidc/subject-1" if each.name == "end_login" else "the-admin"
        assert all(entry.actor == who for entry in after[: len(after) - len(before)])
    assert (await world.gateway.fleet.verify_audit()).broken_at is None


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_every_operation_lists_its_problems(operation: Operation) -> None:
    found = problems_of(operation)
    assert {429, 500} <= set(found)
    assert (404 in found) or operation.path_type is None
    assert (413 in found) == (operation.consumes is not None)

"""The roles matrix, route by route: each route answers exactly the roles that are written here.

The table is written out rather than taken from the code: a route that nobody put here, or whose roles change, fails.
"""

from __future__ import annotations

from typing import Any

from gateway.api.app import OPERATIONS
from gateway.api.auth import Role
from tests.gateway.api.conftest import OCTETS, World

EVERYBODY = None
ALL = frozenset(Role)
OPERATOR = frozenset({Role.OPERATOR, Role.ADMIN})
PUBLISHER = frozenset({Role.PUBLISHER, Role.ADMIN})
SIGNERS = frozenset({Role.OPERATOR, Role.PUBLISHER, Role.ADMIN})
ADMIN = frozenset({Role.ADMIN})

MATRIX: dict[tuple[str, str], frozenset[Role] | None] = {
    ("GET", "/v1/trucks"): ALL,
    ("GET", "/v1/trucks/{truck}"): ALL,
    ("DELETE", "/v1/trucks/{truck}"): OPERATOR,
    ("POST", "/v1/enrolments"): OPERATOR,
    ("GET", "/v1/enrolments"): OPERATOR,
    ("GET", "/v1/trucks/{truck}/samples"): ALL,
    ("GET", "/v1/trucks/{truck}/events"): ALL,
    ("GET", "/v1/trucks/{truck}/receipts"): ALL,
    ("GET", "/v1/trucks/{truck}/coverage"): ALL,
    ("GET", "/v1/trucks/{truck}/evidence"): ALL,
    ("GET", "/v1/trucks/{truck}/verification"): ALL,
    ("GET", "/v1/trucks/{truck}/config"): ALL,
    ("GET", "/v1/trucks/{truck}/ledger"): ALL,
    ("GET", "/v1/trucks/{truck}/budget"): ALL,
    ("PUT", "/v1/documents"): SIGNERS,
    ("GET", "/v1/documents"): ALL,
    ("GET", "/v1/documents/{digest}"): ALL,
    ("GET", "/v1/trust"): ALL,
    ("HEAD", "/v1/blobs/{digest}"): ALL,
    ("GET", "/v1/blobs/{digest}"): ALL,
    ("PUT", "/v1/blobs/{digest}"): PUBLISHER,
    ("GET", "/v1/bundles"): ALL,
    ("GET", "/v1/bundles/{name}/{version}"): ALL,
    ("POST", "/v1/quotes"): SIGNERS,
    ("POST", "/v1/rollouts"): OPERATOR,
    ("GET", "/v1/rollouts"): ALL,
    ("GET", "/v1/rollouts/{id}"): ALL,
    ("POST", "/v1/rollouts/{id}/rollback"): OPERATOR,
    ("POST", "/v1/rollouts/{id}/{action}"): OPERATOR,
    ("GET", "/v1/ledger"): ALL,
    ("GET", "/v1/budgets"): ALL,
    ("GET", "/v1/pools"): ALL,
    ("GET", "/v1/trucks/{truck}/history"): ALL,
    ("GET", "/v1/trucks/{truck}/account"): ALL,
    ("POST", "/v1/trucks/{truck}/bills"): OPERATOR,
    ("GET", "/v1/trucks/{truck}/bills"): ALL,
    ("GET", "/v1/alarms"): ALL,
    ("POST", "/v1/alarms/{id}/acknowledge"): OPERATOR,
    ("POST", "/v1/sticks"): OPERATOR,
    ("GET", "/v1/sticks"): ALL,
    ("GET", "/v1/sticks/{stick}"): OPERATOR,
    ("DELETE", "/v1/sticks/{stick}"): OPERATOR,
    ("POST", "/v1/carried"): OPERATOR,
    ("GET", "/v1/webhooks"): ADMIN,
    ("POST", "/v1/webhooks"): ADMIN,
    ("DELETE", "/v1/webhooks/{id}"): ADMIN,
    ("GET", "/v1/webhooks/{id}/deliveries"): ADMIN,
    ("GET", "/v1/reports/impact"): ALL,
    ("GET", "/v1/stream"): ALL,
    ("GET", "/v1/session"): ALL,
    ("POST", "/v1/session/link"): ALL,
    ("DELETE", "/v1/session"): ALL,
    ("GET", "/v1/session/login"): EVERYBODY,
    ("GET", "/v1/session/callback"): EVERYBODY,
    ("GET", "/v1/tokens"): ADMIN,
    ("POST", "/v1/tokens"): ADMIN,
    ("DELETE", "/v1/tokens/{name}"): ADMIN,
    ("GET", "/v1/audit"): ADMIN,
    ("GET", "/v1/audit/check"): ADMIN,
    ("GET", "/metrics"): ALL,
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/readyz"): EVERYBODY,
    ("GET", "/v1/openapi.json"): EVERYBODY,
    ("GET", "/v1/docs"): EVERYBODY,
}


def test_the_matrix_names_every_route_and_no_other() -> None:
    assert {(each.method, each.path) for each in OPERATIONS} == set(MATRIX)


async def ask(world: World, method: str, path: str, role: Role | None) -> int:
    """Send a request that is complete but for the sender's right to it, and return the status."""
    filled = path.format(
        truck="ke-arrow",
        digest="0" * 64,
        name="maths",
        version="v1",
        id=world.rollout.hex(),
        action="pause",
        stick="0" * 32,
    )
    kwargs: dict[str, Any] = {}
    if path in ("/v1/documents", "/v1/rollouts", "/v1/rollouts/{id}/rollback") and method != "GET":
        kwargs = {"data": world.gateway.signers.config(9), "headers": {"Content-Type": "application/cose"}}
    elif path == "/v1/carried" or ("blobs" in path and method == "PUT"):
        kwargs = {"data": b"x", "headers": OCTETS}
    elif method == "POST":
        kwargs = {"data": b"{}", "headers": {"Content-Type": "application/json"}}
    elif path == "/v1/stream":
        kwargs = {"headers": {"Last-Event-ID": "not a number"}}  # refused after the role, before it streams
    return (await world.gateway.ask(method, filled, role=role, **kwargs)).status


async def test_every_route_takes_its_roles_and_refuses_the_others(world: World) -> None:
    taken: dict[tuple[str, str], frozenset[Role] | None] = {}
    for method, path in MATRIX:
        statuses = {role: await ask(world, method, path, role) for role in Role}
        stranger = await ask(world, method, path, None)
        assert stranger in (200, 303, 400, 401), (method, path, stranger)
        assert all(status != 401 for status in statuses.values()), (method, path, statuses)
        taken[method, path] = (
            EVERYBODY if stranger != 401 else frozenset(role for role, status in statuses.items() if status != 403)
        )
    # Of signed documents the kind decides further: a publisher may put some, but not this configuration.
    assert taken.pop(("PUT", "/v1/documents")) == OPERATOR
    assert taken == {route: roles for route, roles in MATRIX.items() if route != ("PUT", "/v1/documents")}

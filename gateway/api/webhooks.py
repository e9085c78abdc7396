"""Webhooks: where changes are posted to, the secret that signs them (shown once), and what became of each message."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.api.auth import ADMIN
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Millis, PageQuery, Shape, number_cursor
from gateway.config import SafeUrl
from gateway.webhooks import secret_text
from store.fleet.changes import KINDS
from store.fleet.webhooks import DeliveryRecord, WebhookLimitError, WebhookRecord

_SECRET_BYTES = 32


class WebhookPath(Shape, frozen=True):
    """A webhook in an address."""

    id: Annotated[int, Meta(ge=1, le=1 << 53)]


class WebhookRequest(Shape, frozen=True):
    """A new webhook: https (or this machine itself), and the kinds of changes that it wants; none means all."""

    url: Annotated[SafeUrl, Meta(max_length=1_024)]
    kinds: Annotated[list[str], Meta(max_length=32)] = msgspec.field(default_factory=list)


class WebhookShape(Shape, frozen=True):
    """A webhook without its secret."""

    id: int
    url: str
    kinds: list[str]
    created_ms: Millis
    created_by: str


class NewWebhook(WebhookShape, frozen=True):
    """A new webhook. The secret is shown this once."""

    secret: str


class WebhookPage(Shape, frozen=True):
    """Webhooks, oldest first."""

    items: list[WebhookShape]
    next: str | None


class DeliveryShape(Shape, frozen=True):
    """One message: delivered, or due again, or given up (neither)."""

    id: int
    kind: str
    created_ms: Millis
    attempts: int
    due_ms: Millis | None
    delivered_ms: Millis | None
    error: str


class DeliveryPage(Shape, frozen=True):
    """Messages, newest first."""

    items: list[DeliveryShape]
    next: str | None


@operation("GET", "/v1/webhooks", tag="webhooks", needs=ADMIN)
async def list_webhooks(call: Call, query: PageQuery) -> WebhookPage:
    """List the webhooks."""
    after = number_cursor(query.after) or 0
    found = [each for each in await call.api.fleet.webhooks() if each.id > after]
    page = found[: query.served]
    following = str(page[-1].id) if len(found) > query.served else None
    return WebhookPage(items=[_shape(each) for each in page], next=following)


@operation("POST", "/v1/webhooks", tag="webhooks", needs=ADMIN, status=201, problems=(409, 422))
async def create_webhook(call: Call, body: WebhookRequest) -> NewWebhook:
    """Make a webhook.

    Each change is posted as JSON with `type`, `timestamp` and `data`, signed as Standard Webhooks 1.0 says, and again
    for two days until it is answered 2xx.
    """
    unknown = sorted(set(body.kinds) - set(KINDS))
    if unknown:
        raise Problem(422, f"there is no kind of change called {unknown[0][:40]}; there are: {', '.join(KINDS)}")
    fleet, now_ms = call.api.fleet, call.api.services.now_ms()
    secret = secrets.token_bytes(_SECRET_BYTES)
    kinds = ",".join(sorted(set(body.kinds)))
    try:
        identity = await fleet.put_webhook(
            body.url, kinds, secret, now_ms, seen=await fleet.changes.newest(), put_by=call.actor.name
        )
    except WebhookLimitError as error:
        raise Problem(409, str(error)) from error
    return NewWebhook(
        id=identity,
        url=body.url,
        kinds=[each for each in kinds.split(",") if each],
        created_ms=now_ms,
        created_by=call.actor.name,
        secret=secret_text(secret),
    )


@operation("DELETE", "/v1/webhooks/{id}", tag="webhooks", needs=ADMIN)
async def delete_webhook(call: Call, path: WebhookPath) -> WebhookShape:
    """Delete a webhook, and what waits for it."""
    found = await _known(call, path.id)
    await call.api.fleet.delete_webhook(path.id, call.api.services.now_ms(), deleted_by=call.actor.name)
    return _shape(found)


@operation("GET", "/v1/webhooks/{id}/deliveries", tag="webhooks", needs=ADMIN)
async def list_deliveries(call: Call, path: WebhookPath, query: PageQuery) -> DeliveryPage:
    """List a webhook's messages, newest first."""
    await _known(call, path.id)
    found = await call.api.fleet.deliveries(path.id, after=number_cursor(query.after), limit=query.served + 1)
    page = found[: query.served]
    return DeliveryPage(
        items=[_delivery(each) for each in page], next=str(page[-1].id) if len(found) > query.served else None
    )


async def _known(call: Call, identity: int) -> WebhookRecord:
    found = next((each for each in await call.api.fleet.webhooks() if each.id == identity), None)
    if found is None:
        raise Problem(404, "no webhook of that id is here")
    return found


def _shape(each: WebhookRecord) -> WebhookShape:
    return WebhookShape(
        id=each.id,
        url=each.url,
        kinds=[kind for kind in each.kinds.split(",") if kind],
        created_ms=each.created_ms,
        created_by=each.created_by,
    )


def _delivery(each: DeliveryRecord) -> DeliveryShape:
    return DeliveryShape(
        id=each.id,
        kind=each.kind,
        created_ms=each.created_ms,
        attempts=each.attempts,
        due_ms=each.due_ms,
        delivered_ms=each.delivered_ms,
        error=each.error,
    )


OPERATIONS = (create_webhook, list_webhooks, list_deliveries, delete_webhook)

"""Webhooks, and their deliveries as a queue: what was committed is delivered at least once, over restarts, in time.

A delivery is due until it was taken or given up. Who tries one sets it due again a lease later, in a transaction of its
own before the attempt, so that of several gateways one tries, and one that dies meanwhile loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, func, insert, select, update

from store.fleet import audit
from store.fleet.database import FleetPart
from store.fleet.limits import PAGE_MAX
from store.fleet.webhooktables import deliveries, webhooks

WEBHOOKS_MAX: Final = 64
# What a webhook has not taken beyond this is dropped, oldest first: whoever comes back reads the API again.
WAITING_MAX: Final = 10_000
DONE_KEPT: Final = 200


@dataclass(frozen=True, slots=True)
class WebhookRecord:
    """Where changes of some kinds (comma-separated; "" for all) are posted to, and the key that signs them."""

    id: int
    url: str
    kinds: str
    secret: bytes
    created_ms: int
    created_by: str
    seen: int

    def wants(self, kind: str) -> bool:
        """Return whether changes of a kind go there."""
        return not self.kinds or kind in self.kinds.split(",")


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """One message to a webhook: `due_ms` None means that it was delivered, or given up after `error`."""

    id: int
    webhook: int
    kind: str
    body_json: str
    created_ms: int
    due_ms: int | None
    attempts: int
    delivered_ms: int | None
    error: str


class WebhookLimitError(ValueError):
    """There are as many webhooks as there may be."""


class Webhooks(FleetPart):
    """Webhooks and deliveries."""

    async def put_webhook(self, url: str, kinds: str, secret: bytes, now_ms: int, *, seen: int, put_by: str) -> int:
        """Keep a webhook that hears changes after id `seen`; raise `WebhookLimitError`."""
        async with self._database.write() as transaction:
            await self._database.lock(transaction, "webhooks")
            count = (await transaction.execute(select(func.count()).select_from(webhooks))).scalar_one()
            if count >= WEBHOOKS_MAX:
                raise WebhookLimitError(f"there are {WEBHOOKS_MAX} webhooks: delete one first")
            values = {"url": url, "kinds": kinds, "secret": secret, "created_ms": now_ms, "created_by": put_by}
            made = await transaction.execute(insert(webhooks).values(values | {"seen": seen}).returning(webhooks.c.id))
            identity: int = made.scalar_one()
            detail: dict[str, str | int | None] = {"url": url, "kinds": kinds}
            entry = audit.note(put_by, "webhook.created", str(identity), now_ms, detail)
            await audit.append(self._database, transaction, entry)
            return identity

    async def webhooks(self) -> list[WebhookRecord]:
        """Return every webhook, oldest first."""
        async with self._database.read() as connection:
            found = await connection.execute(select(webhooks).order_by(webhooks.c.id))
            return [WebhookRecord(**row) for row in found.mappings()]

    async def delete_webhook(self, identity: int, now_ms: int, *, deleted_by: str) -> bool:
        """Delete a webhook and what waits for it; False if there is none of this id."""
        async with self._database.write() as transaction:
            await transaction.execute(delete(deliveries).where(deliveries.c.webhook == identity))
            gone = await transaction.execute(delete(webhooks).where(webhooks.c.id == identity))
            if gone.rowcount == 0:
                return False
            entry = audit.note(deleted_by, "webhook.deleted", str(identity), now_ms)
            await audit.append(self._database, transaction, entry)
            return True

    async def add_deliveries(
        self, identity: int, after: int, seen: int, messages: Sequence[tuple[str, str]], now_ms: int
    ) -> bool:
        """Queue messages (kind, body) of the changes in (after, seen]; False if another process was faster."""
        async with self._database.write() as transaction:
            moved = await transaction.execute(
                update(webhooks).where(webhooks.c.id == identity, webhooks.c.seen == after).values(seen=seen)
            )
            if moved.rowcount == 0:
                return False
            rows = [
                {
                    "webhook": identity,
                    "kind": kind,
                    "body_json": body,
                    "created_ms": now_ms,
                    "due_ms": now_ms,
                    "attempts": 0,
                    "error": "",
                }
                for kind, body in messages
            ]
            if rows:
                await transaction.execute(insert(deliveries).values(rows))
                of_hook = deliveries.c.webhook == identity
                for still, kept in (
                    (deliveries.c.due_ms.is_not(None), WAITING_MAX),
                    (deliveries.c.due_ms.is_(None), DONE_KEPT),
                ):
                    newest = select(deliveries.c.id).where(of_hook, still).order_by(deliveries.c.id.desc()).limit(kept)
                    await transaction.execute(
                        delete(deliveries).where(of_hook, still, deliveries.c.id.not_in(select(newest.subquery().c.id)))
                    )
            return True

    async def claim_deliveries(self, now_ms: int, lease_ms: int, limit: int = 32) -> list[DeliveryRecord]:
        """Return deliveries that are due, oldest first; nobody else gets them until the lease is over."""
        async with self._database.write() as transaction:
            await self._database.lock(transaction, "deliveries")
            query = select(deliveries).where(deliveries.c.due_ms <= now_ms).order_by(deliveries.c.id).limit(limit)
            found = [DeliveryRecord(**row) for row in (await transaction.execute(query)).mappings()]
            ids = [each.id for each in found]
            if ids:
                await transaction.execute(
                    update(deliveries)
                    .where(deliveries.c.id.in_(ids))
                    .values(due_ms=now_ms + lease_ms, attempts=deliveries.c.attempts + 1)
                )
            return found

    async def settle_delivery(
        self, identity: int, *, due_ms: int | None, delivered_ms: int | None = None, error: str = ""
    ) -> None:
        """Note how an attempt ended: delivered, due again, or given up (neither)."""
        values = {"due_ms": due_ms, "delivered_ms": delivered_ms, "error": error[:300]}
        async with self._database.write() as transaction:
            await transaction.execute(update(deliveries).where(deliveries.c.id == identity).values(values))

    async def deliveries(self, webhook: int, after: int | None = None, limit: int = 100) -> list[DeliveryRecord]:
        """Return a webhook's deliveries, newest first; `after` is the id of the last one of the page before."""
        query = select(deliveries).where(deliveries.c.webhook == webhook)
        if after is not None:
            query = query.where(deliveries.c.id < after)
        async with self._database.read() as connection:
            found = await connection.execute(query.order_by(deliveries.c.id.desc()).limit(min(limit, PAGE_MAX)))
            return [DeliveryRecord(**row) for row in found.mappings()]

    async def next_delivery_ms(self) -> int | None:
        """Return when the next delivery is due (Unix ms), None if none waits."""
        async with self._database.read() as connection:
            due: int | None = (await connection.execute(select(func.min(deliveries.c.due_ms)))).scalar()
            return due

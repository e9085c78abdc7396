"""Webhooks: changes posted to other programs as they are committed, signed, and again and again until they are taken.

The form is that of Standard Webhooks 1.0: headers `webhook-id`, `webhook-timestamp` and `webhook-signature`
(`v1,` and the base64 of HMAC-SHA256 over id, timestamp and body, joined by dots). A receiver must tolerate repeats; the
id stays the same. Redirects are not followed, and an answer other than 2xx is no answer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import aiohttp
import msgspec
import structlog

from store.fleet.alarms import AlarmNote
from store.fleet.fleet import FleetStore
from store.fleet.records import Change
from store.fleet.webhooks import DeliveryRecord, WebhookRecord

log = structlog.get_logger("gateway.webhooks")

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # what says that a text is one
# After the first try: seconds, then minutes, then hours; a receiver that is away for two days has lost nothing.
RETRY_S: Final = (5, 60, 300, 1_800, 7_200, 21_600, 57_600, 86_400)
_TIMEOUT_S: Final = 15.0
_LEASE_MS: Final = 60_000
_SWEEP_S: Final = 30.0
_ANSWER_BYTES_MAX: Final = 4_096
_FAILING_FROM: Final = 2  # tries that failed before: the receiver has been away for a minute
RULE: Final = "webhook.failing"


def signed_headers(secret: bytes, identity: str, time_s: int, body: bytes) -> dict[str, str]:
    """Return the headers that prove a message to who knows the secret (Standard Webhooks 1.0)."""
    message = f"{identity}.{time_s}.".encode() + body
    signature = base64.b64encode(hmac.new(secret, message, hashlib.sha256).digest()).decode()
    return {"webhook-id": identity, "webhook-timestamp": str(time_s), "webhook-signature": f"v1,{signature}"}


def secret_text(secret: bytes) -> str:
    """Return a secret as receivers are given it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


class WebhookTask:
    """Turns changes into deliveries, and delivers."""

    def __init__(self, fleet: FleetStore, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._now_ms = now_ms

    async def run(self) -> None:
        """Work for ever, until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as http:
            waking = asyncio.Event()
            listening = asyncio.create_task(self._listen(waking), name="webhook-changes")
            try:
                while True:
                    waking.clear()
                    await self.queue()
                    await self.deliver(http)
                    await self._rest(waking)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def queue(self) -> None:
        """Turn the changes since each webhook's last into deliveries."""
        for hook in await self._fleet.webhooks():
            after = hook.seen
            while changes := await self._fleet.changes.read(after):
                messages = [
                    await self._message(each) for each in changes if each.kind == "gap" or hook.wants(each.kind)
                ]
                seen = changes[-1].id
                if not await self._fleet.add_deliveries(hook.id, after, seen, messages, self._now_ms()):
                    break
                after = seen

    async def deliver(self, http: aiohttp.ClientSession) -> None:
        """Try what is due."""
        hooks = {each.id: each for each in await self._fleet.webhooks()}
        while due := await self._fleet.claim_deliveries(self._now_ms(), _LEASE_MS):
            await asyncio.gather(*(self._try(http, hooks, each) for each in due))

    async def _try(self, http: aiohttp.ClientSession, hooks: Mapping[int, WebhookRecord], due: DeliveryRecord) -> None:
        hook = hooks.get(due.webhook)
        if hook is None:
            return
        body = due.body_json.encode()
        headers = signed_headers(hook.secret, f"msg_{due.id}", self._now_ms() // 1000, body)
        error = ""
        try:
            async with http.post(
                hook.url,
                data=body,
                headers=headers | {"Content-Type": "application/json", "User-Agent": "digitruck"},
                allow_redirects=False,
            ) as answer:
                await answer.content.read(_ANSWER_BYTES_MAX)
                if not 200 <= answer.status < 300:
                    error = f"answered {answer.status}"
        except (aiohttp.ClientError, TimeoutError, ValueError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        await self._settle(hook, due, error)

    async def _settle(self, hook: WebhookRecord, due: DeliveryRecord, error: str) -> None:
        now_ms = self._now_ms()
        if not error:
            await self._fleet.settle_delivery(due.id, due_ms=None, delivered_ms=now_ms)
            if due.attempts > 1 or due.kind == "ping":
                await self._fleet.settle_alarms(RULE, [], now_ms, truck="", subject=str(hook.id))
            return
        tries = due.attempts  # before this one
        again_ms = now_ms + RETRY_S[tries] * 1000 if tries < len(RETRY_S) else None
        await self._fleet.settle_delivery(due.id, due_ms=again_ms, error=error)
        log.warning("webhook.failed", webhook=hook.id, attempt=tries + 1, error=error)
        if tries >= _FAILING_FROM:
            step = f"digitruck webhook show {hook.id}"
            note = AlarmNote(
                RULE, "", str(hook.id), "warning", f"webhook {hook.id} is not answered: {error}"[:200], step
            )
            await self._fleet.settle_alarms(RULE, [note], now_ms, truck="", subject=str(hook.id))

    async def _message(self, change: Change) -> tuple[str, str]:
        data: dict[str, object] = {"truck": change.truck, "subject": change.subject, "change": change.id}
        if change.kind == "alarm":
            data["alarms"] = [
                {
                    "id": each.id,
                    "rule": each.rule,
                    "subject": each.subject,
                    "severity": each.severity,
                    "text": each.text,
                    "next_step": each.next_step,
                }
                for each in await self._fleet.alarms(change.truck or "", limit=20)
            ]
        at = datetime.fromtimestamp(change.at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
        body = {"type": f"digitruck.{change.kind}", "timestamp": at, "data": data}
        return change.kind, msgspec.json.encode(body).decode()

    async def _listen(self, waking: asyncio.Event) -> None:
        async for _ in self._fleet.changes.subscribe():
            waking.set()

    async def _rest(self, waking: asyncio.Event) -> None:
        due_ms = await self._fleet.next_delivery_ms()
        pause_s = _SWEEP_S if due_ms is None else min(_SWEEP_S, max(0.05, (due_ms - self._now_ms()) / 1000))
        try:
            async with asyncio.timeout(pause_s):
                await waking.wait()
        except TimeoutError:
            pass

"""Applying a signed configuration over the truck's own file, and taking it back when it cuts the truck off.

Commit-confirm: a configuration with `confirm_within_s` is rolled back unless the gateway acknowledges something that
was sent after it was applied, within that time, restarts included (the time then starts again); a version that was
rolled back is not applied again, nor one that keeps killing the daemon. The file stays what it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from edge.config import EdgeConfig, LinkSettings
from edge.room import ContentPolicy, content_policy
from edge.triggers import Limit, signed_limits
from protocol.documents import Config, LinkConfig
from protocol.errors import DigitruckError
from protocol.messages import Receipt
from protocol.numbers import DocumentKind, Outcome
from protocol.tariffs import Power, Timetable
from protocol.terms import Terms, terms_of
from protocol.trust import version_name
from store.attempts import Attempts

log = structlog.get_logger("edge.configure")

_MILLI = 1_000


@dataclass(frozen=True, slots=True)
class Effective:
    """What holds now: the file, with what the signed configuration changes. `terms` has a budget for every link.

    `limits` are those that a signed configuration sets (see `edge.triggers.signed_limits`).
    """

    batch_age_s: float
    collectors: tuple[Mapping[str, Any], ...]
    terms: tuple[Terms, ...]
    limits: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    power: Power | None = None
    timetable: Timetable | None = None
    content: ContentPolicy = field(default_factory=ContentPolicy)


def effective(file: EdgeConfig, signed: Config | None, truck: str = "") -> Effective:
    """Return the configuration that results; a signed one can change a period or a budget, never add a device path."""
    periods = {each.name: each.period_s for each in signed.collectors} if signed is not None else {}
    collectors = []
    for table in file.collector:
        period_s = periods.get(str(table.get("name")))
        if period_s is None:
            collectors.append(table)
        elif period_s > 0:
            collectors.append({**table, "period_s": period_s})
    budgets = {each.name: each for each in signed.links} if signed is not None else {}
    terms = tuple(
        terms_of(
            _budget(link, budgets.get(link.name)),
            tariffs=signed.tariffs if signed is not None else (),
            budgets=signed.budgets if signed is not None else (),
            pools=signed.pools if signed is not None else (),
            truck=truck,
        )
        for link in file.link
    )
    age_s = signed.batch_age_s if signed is not None and signed.batch_age_s is not None else file.batch_age_s
    extra = signed.extra if signed is not None else {}
    power, timetable = (signed.power, signed.timetable) if signed is not None else (None, None)
    limits, content = signed_limits(extra), content_policy(extra)
    return Effective(float(age_s), tuple(collectors), terms, limits, power, timetable, content)


def _budget(link: LinkSettings, signed: LinkConfig | None) -> LinkConfig:
    price, currency = round(link.price_per_mb * _MILLI), link.currency
    if signed is None:
        return LinkConfig(link.name, link.month_bytes_max, link.reserve_bytes, price, currency)
    if signed.price_per_mb_milli:
        price, currency = signed.price_per_mb_milli, signed.currency
    return LinkConfig(link.name, signed.month_bytes_max, signed.reserve_bytes, price, currency)


class Configurator:
    """Applies configurations one at a time and reports what became of each."""

    def __init__(
        self,
        file: EdgeConfig,
        *,
        apply: Callable[[Effective], Awaitable[None]],
        send_receipt: Callable[[Receipt], Awaitable[None]],
        rejected: frozenset[bytes] = frozenset(),
        remember_rejected: Callable[[bytes], Awaitable[None]],
        confirmed: bytes | None = None,
        remember_confirmed: Callable[[bytes], Awaitable[None]],
        monotonic: Callable[[], float],
        attempts: Attempts | None = None,
        truck: str = "",
    ) -> None:
        """`apply` makes a configuration effective or raises; `rejected` are digests that were rolled back before.

        `confirmed` is the digest of the one after whose application the gateway was reached.
        """
        self._attempts = attempts or Attempts()
        self._file = file
        self._truck = truck
        self._apply = apply
        self._send_receipt = send_receipt
        self._rejected = set(rejected)
        self._remember_rejected = remember_rejected
        self._confirmed = confirmed
        self._remember_confirmed = remember_confirmed
        self._monotonic = monotonic
        self._current: tuple[bytes, Config] | None = None
        self._applied_at = 0.0
        self._confirming: asyncio.Task[None] | None = None
        self.applied_version: int | None = None

    async def start(self, configs: Sequence[tuple[bytes, Config]]) -> None:
        """Make effective what was applied before the last stop: of `configs`, newest first, what was not taken back."""
        kept = [each for each in configs if each[0] not in self._rejected]
        while kept:
            digest, config = kept.pop(0)
            before = kept[0] if kept else None
            try:
                await self._make_current((digest, config), before)
            except DigitruckError as failure:
                log.error("config.rejected", version=config.version, reason=str(failure))
                await self._reject(digest, config, Outcome.REJECTED, str(failure))
            else:
                await self._report(digest, config, Outcome.APPLIED, "")
                return
        await self._apply(effective(self._file, None))

    async def close(self) -> None:
        """Stop waiting for a confirmation; the next start goes on with it."""
        self._forget_confirming()

    async def want(self, digest: bytes, config: Config) -> None:
        """Apply a trusted configuration, unless it is in force already or was rolled back before."""
        if (self._current is not None and self._current[0] == digest) or digest in self._rejected:
            return
        before = self._current
        try:
            await self._make_current((digest, config), before)
        except DigitruckError as failure:
            log.error("config.rejected", version=config.version, reason=str(failure))
            await self._go_back(digest, config, before, Outcome.REJECTED, str(failure))
            return
        log.info("config.applied", version=config.version)
        await self._report(digest, config, Outcome.APPLIED, "")

    async def contact(self, asked_at: float) -> None:
        """Hear that the gateway answered what was sent at `asked_at` (monotonic): is the truck not cut off?"""
        if self._confirming is None or self._current is None or asked_at < self._applied_at:
            return
        self._forget_confirming()
        self._confirmed = self._current[0]
        log.info("config.confirmed", version=self.applied_version)
        await self._remember_confirmed(self._confirmed)

    async def _make_current(self, wanted: tuple[bytes, Config], before: tuple[bytes, Config] | None) -> None:
        digest, config = wanted
        with self._attempts.of(digest):
            await self._apply(effective(self._file, config, self._truck))
        self._current, self.applied_version = wanted, config.version
        self._applied_at = self._monotonic()
        self._forget_confirming()
        if config.confirm_within_s is not None and digest != self._confirmed:
            self._confirming = asyncio.create_task(self._await_confirmation(digest, config, before))

    def _forget_confirming(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()
            self._confirming = None

    async def _await_confirmation(self, digest: bytes, config: Config, before: tuple[bytes, Config] | None) -> None:
        assert config.confirm_within_s is not None
        await asyncio.sleep(config.confirm_within_s)
        self._confirming = None
        reason = f"the gateway was not reached within {config.confirm_within_s} s"
        log.warning("config.rolled_back", version=config.version, reason=reason)
        await self._go_back(digest, config, before, Outcome.ROLLED_BACK, reason)

    async def _go_back(
        self, digest: bytes, config: Config, before: tuple[bytes, Config] | None, outcome: Outcome, reason: str
    ) -> None:
        self._current = before
        self.applied_version = before[1].version if before is not None else None
        await self._apply(effective(self._file, before[1] if before is not None else None, self._truck))
        await self._reject(digest, config, outcome, reason)

    async def _reject(self, digest: bytes, config: Config, outcome: Outcome, reason: str) -> None:
        self._rejected.add(digest)
        await self._remember_rejected(digest)
        await self._report(digest, config, outcome, reason)

    async def _report(self, digest: bytes, config: Config, outcome: Outcome, reason: str) -> None:
        await self._send_receipt(
            Receipt(
                document=DocumentKind.CONFIG,
                digest=digest,
                outcome=outcome,
                name=version_name(config)[:200],
                version=config.version,
                reason=reason[:200],
            )
        )

"""Fetching one object in pieces, over whichever links may carry it, into a staging area that survives a power cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
from aiocoap.numbers import codes

from edge.link import Link
from edge.link_errors import LinkDownError, RefusedError, SessionLostError
from edge.uplink import Uplink
from protocol.errors import BudgetExceededError, DigitruckError
from protocol.numbers import BURST_PIECES_MAX, PATH_PIECES, PIECE_BYTES, Precedence
from protocol.transfer import Ask, Transfer
from store.errors import StoreError
from store.staging import Staging
from store.writer import Writer

log = structlog.get_logger("edge.fetch")

_BACKOFFS_TO_DOWN = 2
_TIMEOUT_MAX_S = 60.0
_WAIT_S, _IDLE_WAIT_S = 2.0, 15.0
_REST_S = 30.0
_ARRIVED_MAX = 1_024  # pieces that wait for the disk; beyond that no more are asked for


class Fetch:
    """One object on its way to this truck."""

    def __init__(
        self,
        uplink: Uplink,
        writer: Writer,
        staging: Staging,
        *,
        precedence: Precedence,
        cause: str,
        monotonic: Callable[[], float],
    ) -> None:
        self._uplink = uplink
        self._writer = writer
        self.staging = staging
        self._precedence = precedence
        self._cause = cause
        self._monotonic = monotonic
        paces = {name: link.bursts.pace for name, link in uplink.links.items()}
        self._transfer = Transfer(staging.digest, staging.size, staging.missing(), piece_bytes=PIECE_BYTES, paces=paces)
        self._arrived: dict[int, bytes] = {}
        self._storing: asyncio.Task[None] | None = None
        self._pieces_max: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: dict[str, float] = {}
        self._failure: Exception | None = None
        self.deadline_s: int | None = None  # Unix; until then it may wait for a link that costs less

    @property
    def pieces(self) -> int:
        """How many pieces the object has."""
        return self.staging.pieces

    @property
    def pieces_left(self) -> int:
        """How many pieces have not arrived."""
        return self._transfer.pieces_left

    def hurry(self, precedence: Precedence) -> None:
        """Go on under another precedence: a deadline comes nearer."""
        self._precedence = precedence

    async def run(self) -> Path:
        """Fetch until the object is whole and verified; return its file. Raises `RefusedError`, `DigestMismatchError`.

        While no link may carry it, it waits: an outage of weeks costs nothing.
        """
        self._uplink.listeners.add(self._wake)
        try:
            while not self.staging.is_full:
                if self._failure is not None:
                    raise self._failure
                for link in self._uplink.links.values():
                    self._pump(link)
                await self._pause()
                self._count_losses()
        finally:
            self._uplink.listeners.discard(self._wake)
            await asyncio.shield(self._stop())
        return await self._writer.run(self.staging.complete)

    async def discard(self) -> None:
        """Delete the staged bytes: they are not needed any more."""
        await self._writer.run(self.staging.discard)

    async def _stop(self) -> None:
        """Keep what has arrived for the next time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._storing is not None:
            await self._storing
        await self._writer.run(self.staging.close)

    def _may(self, link: Link) -> bool:
        waiting = self.pieces_left * PIECE_BYTES
        return self._uplink.may(link, self._precedence, waiting_bytes=waiting, deadline_s=self.deadline_s)

    def _pump(self, link: Link) -> None:
        now = self._monotonic()
        if link.is_away and len(self._transfer.flight(link.name)):
            # What was asked for there goes over another link at once.
            self._transfer.give_up(link.name)
        if link.resting or now < self._resting.get(link.name, 0.0):
            return
        while len(self._arrived) < _ARRIVED_MAX and self._may(link):
            if link.takes_bursts:
                if not self._burst(link, now):
                    return
                continue
            ask = self._transfer.poll_transmit(link.name, now)
            if ask is None:
                return
            task = asyncio.create_task(self._ask(link, ask), name=f"piece-{link.name}-{ask.number}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _burst(self, link: Link, now: float) -> bool:
        """Ask for the next pieces over a link; return whether it is worth asking again."""
        pieces_max = self._pieces_max.get(link.name, BURST_PIECES_MAX)
        burst = self._transfer.poll_burst(link.name, now, pieces_max=pieces_max)
        if burst is None:
            return False
        asks = burst.asks
        try:
            link.bursts.ask(
                burst,
                lambda ordinal, data: self._heard(link, asks[ordinal], data),
                precedence=self._precedence,
                cause=self._cause,
            )
        except BudgetExceededError as failure:
            for ask in asks:
                self._transfer.handle_loss(link.name, ask.number)
            # A smaller one may be paid for yet.
            self._pieces_max[link.name] = max(1, len(asks) // 4)
            if len(asks) == 1:
                self._pieces_max.pop(link.name)
                self._failed(link, failure, was_in_flight=True)
                return False
        return True

    def _heard(self, link: Link, ask: Ask, data: bytes) -> None:
        try:
            index = self._transfer.handle_piece(link.name, ask, data, self._monotonic())
        except DigitruckError as failure:
            self._failed(link, failure, was_in_flight=False)
            index = None
        if index is not None:
            self._arrived[index] = data
            if self._storing is None or self._storing.done():
                self._storing = asyncio.create_task(self._store(), name="pieces-store")
        self._wake.set()

    async def _store(self) -> None:
        """Write what has arrived, all of it that waits in one go."""
        try:
            while self._arrived and self._failure is None:
                batch, self._arrived = self._arrived, {}
                await self._writer.run(partial(self._put, batch))
        except (DigitruckError, OSError) as failure:
            self._failure = failure
        finally:
            self._wake.set()

    def _put(self, pieces: dict[int, bytes]) -> None:
        for index, data in pieces.items():
            self.staging.put(index, data)

    async def _ask(self, link: Link, ask: Ask) -> None:
        timeout_s = min(_TIMEOUT_MAX_S, 4 * self._transfer.flight(link.name).pace.rto_s)
        try:
            answered = await link.request(
                codes.FETCH,
                PATH_PIECES,
                ask.request.encode(),
                precedence=self._precedence,
                cause=self._cause,
                timeout_s=timeout_s,
                answer_bytes=PIECE_BYTES,
            )
            index = self._transfer.handle_piece(link.name, ask, answered.payload, self._monotonic())
            if index is not None:
                await self._writer.run(lambda: self.staging.put(index, answered.payload))
        except DigitruckError as failure:
            was_in_flight = ask.number in self._transfer.flight(link.name)
            self._transfer.handle_loss(link.name, ask.number)
            self._failed(link, failure, was_in_flight)
        except OSError as failure:
            # The disk is full or fails: paying for more pieces is no use.
            self._failure = failure
        finally:
            self._wake.set()

    def _failed(self, link: Link, failure: DigitruckError, was_in_flight: bool) -> None:
        if isinstance(failure, RefusedError) and not failure.is_passing:
            self._failure = failure
        elif isinstance(failure, BudgetExceededError):
            self._resting[link.name] = self._monotonic() + _REST_S
        elif isinstance(failure, LinkDownError):
            # In flight until now means that no time went by: the socket or the network refused it.
            if was_in_flight and not link.resting:
                self._lost(link)
        elif isinstance(failure, SessionLostError):
            if not failure.renewable and not link.resting:
                self._lost(link)
        elif isinstance(failure, StoreError):
            self._failure = failure
        else:
            log.warning("piece.unusable", link=link.name, reason=str(failure))
            self._resting[link.name] = self._monotonic() + _REST_S

    def _count_losses(self) -> None:
        # Losses are counted by the flight of each link, so one link that went silent does not stop the others.
        before = {name: len(self._transfer.flight(name)) for name in self._uplink.links}
        self._transfer.handle_timeout(self._monotonic())
        for link in self._uplink.links.values():
            flight = self._transfer.flight(link.name)
            if len(flight) < before[link.name] and flight.pace.backoffs >= _BACKOFFS_TO_DOWN and not link.resting:
                self._lost(link)

    def _lost(self, link: Link) -> None:
        was_up = link.usable
        link.mark_down()
        if not was_up:
            link.rest(min(_REST_S, self._uplink.backoff_max_s))
        self._uplink.wake()

    async def _pause(self) -> None:
        self._wake.clear()
        until = self._transfer.poll_timeout()
        now = self._monotonic()
        # With nothing in flight no link may be used: look again when one has rested, and now and then.
        rests = [link.rests_until for link in self._uplink.links.values()] + list(self._resting.values())
        idle_s = min((at - now for at in rests if at > now), default=_IDLE_WAIT_S)
        wait_s = min(_IDLE_WAIT_S, idle_s + 0.01) if until is None else min(_WAIT_S, max(0.01, until - now))
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return

"""The uplink: drives the forwarding machine over every link, contact by contact.

A contact is one period in which a link answers. tenacity is around contacts: when a link stops answering it is left
alone for a while, longer each time, and everything in flight on it goes back to the queue; inside a contact the
forwarding machine and its pace do all the repeating. Nothing is sent while nothing waits: an idle truck costs no byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from aiocoap.numbers import codes
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_never, wait_random_exponential

from edge.clock import Clock
from edge.link import Answered, Link, LinkDownError, RefusedError, SessionLostError
from protocol.errors import BudgetExceededError, PeerError
from protocol.forwarding import Forwarder, Transmit
from protocol.messages import Ack, Upload, unseal
from protocol.numbers import PARCEL_WINDOW, PATH_UPLOAD, Precedence
from protocol.scheduler import LinkView, may_carry
from store.parcels import ParcelQueue, Reseal
from store.writer import Writer

log = structlog.get_logger("edge.uplink")

_LOSSES_TO_DOWN = 4
_ANSWER_TIMEOUT_MAX_S = 90.0
_BACKOFF_MAX_S = 300.0
_BUDGET_PAUSE_S = 60.0
_SWEEP_S = 60.0


@dataclass(frozen=True, slots=True)
class Contact:
    """What the rest of the daemon hears after each acknowledgement."""

    link: str
    ack: Ack


class Uplink:
    """All links of the truck and the one queue that they empty."""

    def __init__(
        self,
        links: Sequence[Link],
        queue: ParcelQueue,
        writer: Writer,
        clock: Clock,
        *,
        patience_s: float,
        affordable: Callable[[str, Precedence], bool],
        on_contact: Callable[[Contact], Awaitable[None]],
        on_time: Callable[[int, float], Awaitable[None]],
        reseal: Reseal,
        backoff_max_s: float = _BACKOFF_MAX_S,
    ) -> None:
        """`affordable(link, precedence)` is the budget's word; `on_time` gets a trusted time and its round trip."""
        self.links = {link.name: link for link in links}
        self.patience_s = patience_s
        self._queue = queue
        self._writer = writer
        self._clock = clock
        self._affordable = affordable
        self._on_contact = on_contact
        self._on_time = on_time
        self._reseal = reseal
        self._backoff_max_s = backoff_max_s
        self._forwarder = Forwarder(queue.epoch)
        self._wakes = {link.name: asyncio.Event() for link in links}
        self._asked_desired = False
        self._hello_wanted = True
        self._sends: set[asyncio.Task[None]] = set()
        self._losses: dict[str, int] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        await self.reload()
        async with asyncio.TaskGroup() as group:
            for link in self.links.values():
                group.create_task(self._run_link(link), name=f"uplink-{link.name}")

    async def reload(self) -> None:
        """Offer what waits in the queue; call it whenever a parcel was added."""
        if self._forwarder.room:
            waiting = await self._writer.run(lambda: self._queue.load_window(2 * PARCEL_WINDOW))
            if waiting and waiting[0].epoch != self._forwarder.epoch:
                if self._forwarder.in_flight or self._forwarder.room < 2 * PARCEL_WINDOW:
                    return
                self._forwarder = Forwarder(waiting[0].epoch)
            self._forwarder.offer([each.waiting() for each in waiting])
        self.wake()

    def wake(self) -> None:
        """Have every link look again for something to do."""
        for event in self._wakes.values():
            event.set()

    def views(self) -> tuple[LinkView, ...]:
        """Return the links as the scheduler sees them."""
        now = self._clock.monotonic()
        return tuple(
            LinkView(
                name=link.name,
                price=link.price,
                usable=link.usable,
                unusable_s=0.0 if link.usable else now - link.down_since,
                bulk=link.settings.bulk,
            )
            for link in self.links.values()
        )

    def may(self, link: Link, precedence: Precedence) -> bool:
        """Return whether this link should carry this precedence now."""
        views = self.views()
        # A link that is down is asked as if it were up: whether it is worth trying it again.
        mine = next(each for each in views if each.name == link.name)
        trying = LinkView(mine.name, mine.price, True, mine.unusable_s, mine.bulk)
        return may_carry(trying, views, precedence, patience_s=self.patience_s) and self._affordable(
            link.name, precedence
        )

    async def _run_link(self, link: Link) -> None:
        while True:
            await self._work_for(link)
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type((LinkDownError, RefusedError)),
                wait=wait_random_exponential(multiplier=2, max=self._backoff_max_s),
                stop=stop_never,
                sleep=self._nap,
                after=_tell,
            ):
                with attempt:
                    if self._wants(link):
                        await self._contact(link)

    async def _nap(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _work_for(self, link: Link) -> None:
        """Wait until this link has something to do."""
        while not self._wants(link):
            wake = self._wakes[link.name]
            wake.clear()
            try:
                # The sweep notices what no event tells: patience that ran out, a budget's new period.
                async with asyncio.timeout(min(_SWEEP_S, max(0.5, self.patience_s / 2))):
                    await wake.wait()
            except TimeoutError:
                continue

    def _wants(self, link: Link) -> bool:
        if self._hello_wanted:
            return self.may(link, Precedence.PRIORITY)
        precedence = self._forwarder.peek(link.name)
        return precedence is not None and self.may(link, precedence)

    async def _contact(self, link: Link) -> None:
        """Send what this link should carry until nothing is left; raise `LinkDownError` when it stops answering."""
        self._forwarder.new_contact()
        self._losses[link.name] = 0
        if self._hello_wanted:
            await self._hello(link)
        try:
            while True:
                self._pump(link)
                if not len(self._forwarder.flight(link.name)):
                    if self._forwarder.room == 0 or not self._wants(link):
                        return
                    await asyncio.sleep(0)
                await self._pause(link)
                self._count_losses(link)
        finally:
            for number in list(self._numbers(link)):
                self._forwarder.handle_loss(link.name, number)

    def _numbers(self, link: Link) -> list[int]:
        return self._forwarder.numbers_in_flight(link.name)

    def _pump(self, link: Link) -> None:
        while self._wants(link):
            transmit = self._forwarder.poll_transmit(
                link.name, self._clock.monotonic(), ask_time=self._clock.wall_s() is None
            )
            if transmit is None:
                return
            task = asyncio.create_task(self._send(link, transmit), name=f"upload-{link.name}-{transmit.number}")
            self._sends.add(task)
            task.add_done_callback(self._sends.discard)

    async def _pause(self, link: Link) -> None:
        """Wait for an answer, a new parcel, or the next timeout."""
        wake = self._wakes[link.name]
        wake.clear()
        until = self._forwarder.poll_timeout()
        wait_s = 0.05 if until is None else max(0.01, until - self._clock.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                await wake.wait()
        except TimeoutError:
            return

    def _count_losses(self, link: Link) -> None:
        lost = self._forwarder.handle_timeout(self._clock.monotonic())
        if lost:
            self._losses[link.name] = self._losses.get(link.name, 0) + lost
        if self._losses.get(link.name, 0) >= _LOSSES_TO_DOWN:
            link.mark_down()
            self.wake()
            raise LinkDownError(f"{link.name} does not answer")

    async def _send(self, link: Link, transmit: Transmit) -> None:
        forwarder, epoch = self._forwarder, self._forwarder.epoch
        allowed = await self._writer.run(
            lambda: self._queue.mark_sent(epoch, transmit.sequences, self._clock.at_least_s())
        )
        if len(allowed) < len(transmit.sequences):
            forwarder.withdraw(set(transmit.sequences) - set(allowed))
        cause = unseal(transmit.upload.parcels[0]).kind.name.lower()
        try:
            answered = await self._request(link, transmit.upload.encode(), transmit.precedence, cause)
            ack = Ack.decode(answered.payload)
        except (LinkDownError, SessionLostError, RefusedError, BudgetExceededError, PeerError) as failure:
            await self._failed(link, forwarder, transmit, failure)
            return
        self._losses[link.name] = 0
        settled = forwarder.handle_ack(link.name, transmit.number, ack, self._clock.monotonic())
        now_s = self._clock.at_least_s()
        await self._writer.run(lambda: self._queue.settle(settled, epoch, now_s, sent=transmit.sequences))
        await self._acknowledged(link, ack, answered.rtt_s, epoch)

    async def _request(self, link: Link, payload: bytes, precedence: Precedence, cause: str) -> Answered:
        timeout_s = min(_ANSWER_TIMEOUT_MAX_S, 4 * self._forwarder.flight(link.name).pace.rto_s)
        return await link.request(
            codes.POST, PATH_UPLOAD, payload, precedence=precedence, cause=cause, timeout_s=timeout_s
        )

    async def _failed(self, link: Link, forwarder: Forwarder, transmit: Transmit, failure: Exception) -> None:
        forwarder.handle_loss(link.name, transmit.number)
        await self._writer.run(lambda: self._queue.mark_unanswered(forwarder.epoch, transmit.sequences))
        if isinstance(failure, SessionLostError):
            link.session_lost()
            self._losses[link.name] = self._losses.get(link.name, 0) + 1
        elif isinstance(failure, LinkDownError | RefusedError):
            self._losses[link.name] = self._losses.get(link.name, 0) + 1
        elif isinstance(failure, PeerError):
            log.warning("ack.unusable", link=link.name, reason=str(failure))
        self._wakes[link.name].set()

    async def _hello(self, link: Link) -> None:
        """Ask for the time and the desired state with an upload that carries nothing."""
        payload = Upload(ask_time=True).encode()
        try:
            answered = await self._request(link, payload, Precedence.PRIORITY, "hello")
        except SessionLostError as failure:
            link.session_lost()
            raise LinkDownError(str(failure)) from failure
        self._hello_wanted = False
        await self._heard(link, Ack.decode(answered.payload), answered.rtt_s)

    async def _acknowledged(self, link: Link, ack: Ack, rtt_s: float, epoch: int) -> None:
        if ack.cumulative or ack.ranges:
            now_s = self._clock.at_least_s()
            applied = await self._writer.run(lambda: self._queue.mark_delivered(ack, epoch, now_s))
            if applied.clashed:
                await self._writer.run(lambda: self._queue.renumber(applied.clashed, epoch, self._reseal))
        await self._heard(link, ack, rtt_s)
        await self.reload()

    async def _heard(self, link: Link, ack: Ack, rtt_s: float) -> None:
        if ack.time_s is not None:
            await self._on_time(ack.time_s, rtt_s)
        await self._on_contact(Contact(link.name, ack))


def _tell(state: RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome else None
    log.info("contact.failed", attempt=state.attempt_number, reason=str(failure))

"""The uplink: drives the forwarding machine over every link, contact by contact.

A contact is one period in which a link answers. tenacity is around contacts: when a link stops answering it is left
alone for a while, longer each time, and everything in flight on it goes back to the queue; inside a contact the
forwarding machine and its pace do all the repeating. Nothing is sent while nothing waits: an idle truck costs no byte.
A link that failed is tried with what can wait, and before a dearer link is used for it: that is how a cheap link is
found again without a byte of probing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
from aiocoap.numbers import codes
from tenacity import AsyncRetrying, retry_if_exception_type, stop_never, wait_random_exponential

from edge.choice import Choice
from edge.clock import Clock
from edge.contact import Contact as Contact
from edge.contact import tell_failure
from edge.link import Answered, Link
from edge.link_errors import LinkDownError, SessionLostError
from edge.waits import Waits
from protocol.errors import BudgetExceededError, DigitruckError, PeerError, QueueFullError
from protocol.forwarding import Forwarder, Settled, Transmit
from protocol.messages import Ack, Upload, unseal
from protocol.numbers import PARCEL_WINDOW, PATH_UPLOAD, Precedence
from protocol.refusals import Refusal
from protocol.scheduler import Work, next_precedence
from store.errors import CommitUnknownError
from store.parcels import ParcelQueue, Reseal
from store.writer import Writer

log = structlog.get_logger("edge.uplink")

# A link is down when so many timeouts in a row brought no answer at all, or fewer with so many losses.
_TIMEOUTS_TO_DOWN, _LOSSES_TO_DOWN = 2, 4
_ANSWER_TIMEOUT_MAX_S, _BACKOFF_MAX_S, _SWEEP_S = 90.0, 300.0, 60.0
# What makes a contact fail without being a fault of this daemon's own: it is tried again, later each time.
_PASSING = (LinkDownError, PeerError, BudgetExceededError, CommitUnknownError, QueueFullError)


class Uplink:
    """All links of the truck and the one queue that they empty."""

    def __init__(
        self,
        links: Sequence[Link],
        queue: ParcelQueue,
        writer: Writer,
        clock: Clock,
        *,
        choice: Choice,
        on_contact: Callable[[Contact], Awaitable[None]],
        on_time: Callable[[int, float], Awaitable[None]],
        reseal: Reseal,
        on_fork: Callable[[], None],
        in_doubt: Callable[[], tuple[bool, int | None]],
        backoff_max_s: float = _BACKOFF_MAX_S,
    ) -> None:
        """`in_doubt`: is earlier spending unknown, and since when (Unix s)? `on_fork`: the state is old."""
        self.links = {link.name: link for link in links}
        self.choice = choice
        self._queue = queue
        self._writer = writer
        self._clock = clock
        self._on_contact = on_contact
        self._on_time = on_time
        self._reseal = reseal
        self._on_fork = on_fork
        self._in_doubt = in_doubt
        self.backoff_max_s = backoff_max_s
        self.forwarder = Forwarder(queue.epoch, known=queue.known(queue.epoch))
        self._wakes, self.listeners = {link.name: asyncio.Event() for link in links}, set[asyncio.Event]()
        self._hello_wanted = True
        self._hellos = 0
        self._sends: set[asyncio.Task[None]] = set()
        self._losses: dict[str, int] = {}
        self._ended: dict[str, DigitruckError] = {}
        self._waits = Waits(clock.monotonic)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.reload()
        async with asyncio.TaskGroup() as group:
            for link in self.links.values():
                group.create_task(self._run_link(link), name=f"uplink-{link.name}")

    async def close(self) -> None:
        """Stop waiting for answers; what was under way waits in the queue as if it had not been sent."""
        for task in self._sends:
            task.cancel()
        await asyncio.gather(*self._sends, return_exceptions=True)

    async def reload(self) -> None:
        """Offer what waits in the queue; call it whenever a parcel was added."""
        if self.forwarder.room:
            waiting = await self._writer.run(lambda: self._queue.load_window(2 * PARCEL_WINDOW))
            if waiting and waiting[0].epoch != self.forwarder.epoch:
                if self.forwarder.in_flight:
                    return  # the acknowledgement of what flies leads here again
                self.forwarder = Forwarder(waiting[0].epoch, known=self._queue.known(waiting[0].epoch))
            self.forwarder.offer([each.waiting() for each in waiting])
        self.wake()

    def budget_changed(self) -> None:
        """Ask the budget again for what it refused."""
        self.choice.purses.ask_again()
        self.wake()

    def wake(self) -> None:
        """Have every link, and every download, look again for something to do."""
        for event in (*self._wakes.values(), *self.listeners):
            event.set()

    def device_changed(self, link: Link, usable: bool) -> None:
        """Hear from the system that a link cannot carry any more, or may be tried: no timeout has to find that out."""
        link.doubt()
        if not usable:
            self._ended[link.name] = LinkDownError(f"{link.name}: its interface cannot carry anything")
        self.wake()

    def may(
        self, link: Link, precedence: Precedence, *, waiting_bytes: int | None = None, deadline_s: int | None = None
    ) -> bool:
        """Return whether this link should carry this now: parcels, or a download that is due at `deadline_s` (Unix)."""
        if waiting_bytes is None:
            return self.why(link, precedence) is None
        return self.choice.why(link, Work(precedence, waiting_bytes=waiting_bytes), deadline_s=deadline_s) is None

    def why(self, link: Link, precedence: Precedence) -> Refusal | None:
        """Return why this link should not carry parcels of this precedence now; None: it should."""
        return self.choice.why(link, self._waits.work(precedence))

    def is_spent(self, link: Link, precedence: Precedence) -> bool:
        """Return whether the budget keeps this precedence off a link now."""
        return self.choice.purses.is_spent(link, precedence)

    def _refused(self, link: Link, precedence: Precedence, failure: BudgetExceededError) -> None:
        """Note that the budget refused a request."""
        self.choice.purses.refused(link, precedence, failure, flying=len(self.forwarder.flight(link.name)) > 0)

    async def _run_link(self, link: Link) -> None:
        heard_at = None
        while True:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_PASSING),
                wait=wait_random_exponential(multiplier=2, max=self.backoff_max_s),
                stop=stop_never,
                sleep=partial(self._nap, link),
                after=partial(tell_failure, link.name),
            ):
                with attempt:
                    # That another link has in hand what this one failed with is no success of this one.
                    await self._work_for(link)
                    if attempt.retry_state.attempt_number == 1 or link.last_contact == heard_at:
                        try:
                            await self._try_contact(link)
                        finally:
                            heard_at = link.last_contact

    async def _try_contact(self, link: Link) -> None:
        try:
            await self._contact(link)
        except BudgetExceededError as failure:
            self._refused(link, self._hello_precedence, failure)
            raise
        except (LinkDownError, PeerError):
            link.mark_down()
            raise

    async def _nap(self, link: Link, seconds: float) -> None:
        """Leave a link alone, unless something else (a download) hears it meanwhile, or a new flash comes up."""
        link.rest(seconds)
        # The other links may carry now what this one did not.
        self.wake()
        end = self._clock.monotonic() + seconds
        # A flash that was here before has had its try; else two dead links would wake each other for ever.
        tried = self.forwarder.newest(Precedence.FLASH)
        while (left_s := end - self._clock.monotonic()) > 0:
            if not link.usable and not link.resting:
                break
            if self.forwarder.peek(link.name) is Precedence.FLASH and self.forwarder.newest(Precedence.FLASH) > tried:
                link.rests_until = 0.0
                break
            wake = self._wakes[link.name]
            wake.clear()
            try:
                async with asyncio.timeout(left_s):
                    await wake.wait()
            except TimeoutError:
                break
            if link.usable and self._wants(link):
                break

    async def _work_for(self, link: Link) -> None:
        """Wait until this link has something to do."""
        while not self._wants(link):
            wake = self._wakes[link.name]
            wake.clear()
            try:
                # The sweep notices what no event tells: patience that ran out, a budget's new period.
                async with asyncio.timeout(min(_SWEEP_S, max(0.5, self.choice.patience_s / 2))):
                    await wake.wait()
            except TimeoutError:
                continue

    def _wants(self, link: Link) -> bool:
        if self._hello_wanted:
            return self.may(link, self._hello_precedence)
        return self._next(link) is not None

    def _next(self, link: Link) -> Precedence | None:
        """Return which precedence should go next over this link, None when none of those that wait may go now."""
        if self.forwarder.peek(link.name) is None:
            return None
        self._waits.note(self.forwarder.waiting_bytes())
        waiting = [
            (each, self._waits.unserved_s(each))
            for each in self._waits.precedences
            if self.forwarder.peek(link.name, only=each) is not None and self.may(link, each)
        ]
        return next_precedence(waiting, uploads=self._waits.uploads, patience_s=self.choice.patience_s)

    @property
    def _hello_precedence(self) -> Precedence:
        # Where no budget allows that, the reserve is what a truck calls home with.
        spent = all(self.is_spent(link, Precedence.PRIORITY) for link in self.links.values())
        return Precedence.FLASH if spent else Precedence.PRIORITY

    async def _contact(self, link: Link) -> None:
        """Send what this link should carry until nothing is left; raise `LinkDownError` when it stops answering."""
        self.forwarder.new_contact()
        self._losses[link.name] = 0
        self._ended.pop(link.name, None)
        try:
            while True:
                if self._hello_wanted:
                    await self._hello(link)
                self._pump(link)
                if not len(self.forwarder.flight(link.name)):
                    return
                await self._pause(link)
                self._count_losses()
                self._check_contact(link)
        finally:
            for number in list(self.forwarder.numbers_in_flight(link.name)):
                self.forwarder.handle_loss(link.name, number)

    def _pump(self, link: Link) -> None:
        while (only := self._next(link)) is not None:
            transmit = self.forwarder.poll_transmit(
                link.name, self._clock.monotonic(), ask_time=self._clock.wants_time, only=only
            )
            if transmit is None:
                return
            self._waits.sent(only)
            task = asyncio.create_task(self._send(link, transmit), name=f"upload-{link.name}-{transmit.number}")
            self._sends.add(task)
            task.add_done_callback(self._sends.discard)

    async def _pause(self, link: Link) -> None:
        """Wait for an answer, a new parcel, or the next timeout."""
        wake = self._wakes[link.name]
        wake.clear()
        until = self.forwarder.poll_timeout()
        wait_s = 0.0 if until is None else max(0.01, until - self._clock.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                await wake.wait()
        except TimeoutError:
            return

    def _count_losses(self) -> None:
        before = {name: len(self.forwarder.flight(name)) for name in self.links}
        if self.forwarder.handle_timeout(self._clock.monotonic()):
            for name, count in before.items():
                self._losses[name] = self._losses.get(name, 0) + count - len(self.forwarder.flight(name))

    def _check_contact(self, link: Link) -> None:
        """Raise what ended the contact: an error that its requests met, or silence."""
        failure = self._ended.pop(link.name, None)
        if failure is not None:
            raise failure
        losses, timeouts = self._losses.get(link.name, 0), self.forwarder.flight(link.name).pace.backoffs
        if losses and (timeouts >= _TIMEOUTS_TO_DOWN or (timeouts and losses >= _LOSSES_TO_DOWN)):
            raise LinkDownError(f"{link.name} does not answer")

    async def _send(self, link: Link, transmit: Transmit) -> None:
        forwarder, epoch = self.forwarder, self.forwarder.epoch
        try:
            allowed = await self._writer.run(
                lambda: self._queue.mark_sent(epoch, transmit.sequences, self._clock.at_least_s())
            )
            upload = transmit.only(allowed)
            if len(allowed) < len(transmit.sequences):
                forwarder.withdraw(set(transmit.sequences) - set(allowed))
            if not upload.parcels:
                forwarder.handle_loss(link.name, transmit.number)
                self._wakes[link.name].set()
                return
            cause = unseal(upload.parcels[0]).kind.name.lower()
            asked_at = self._clock.monotonic()
            answered = await self._request(link, upload.encode(), transmit.precedence, cause)
            ack = Ack.decode(answered.payload)
            self._losses[link.name] = 0
            settled = forwarder.handle_ack(link.name, transmit.number, ack, self._clock.monotonic())
            if await self._writer.run(lambda: self._settle(forwarder, settled, transmit.sequences)):
                self._on_fork()
                self._hello_wanted = True
        except (DigitruckError, asyncio.CancelledError) as failure:
            await self._failed(link, forwarder, transmit, failure)
            if isinstance(failure, asyncio.CancelledError):
                raise
            return
        try:
            await self._acknowledged(link, ack, answered.rtt_s, forwarder, asked_at)
        except DigitruckError as failure:
            # The parcels are settled; what could not be done with the rest of the answer comes with the next one.
            log.warning("ack.unfinished", link=link.name, reason=str(failure))
            self.wake()

    async def _request(
        self, link: Link, payload: bytes, precedence: Precedence, cause: str, *, patience: int = 4
    ) -> Answered:
        timeout_s = min(_ANSWER_TIMEOUT_MAX_S, patience * self.forwarder.flight(link.name).pace.rto_s)
        return await link.request(
            codes.POST, PATH_UPLOAD, payload, precedence=precedence, cause=cause, timeout_s=timeout_s
        )

    async def _failed(self, link: Link, forwarder: Forwarder, transmit: Transmit, failure: BaseException) -> None:
        was_in_flight = transmit.number in forwarder.flight(link.name)
        forwarder.handle_loss(link.name, transmit.number)
        await self._writer.run(lambda: self._queue.mark_unanswered(forwarder.epoch, transmit.sequences))
        if isinstance(failure, BudgetExceededError):
            self._refused(link, transmit.precedence, failure)
        elif isinstance(failure, LinkDownError):
            # In flight until now means that no time went by: the socket or the network refused it.
            if was_in_flight:
                self._ended[link.name] = failure
        elif isinstance(failure, SessionLostError):
            if not failure.renewable:
                self._ended[link.name] = LinkDownError(str(failure))
        elif isinstance(failure, DigitruckError):
            log.warning("upload.failed", link=link.name, reason=str(failure))
            self._ended[link.name] = failure if isinstance(failure, _PASSING) else LinkDownError(str(failure))
        self._wakes[link.name].set()

    async def _hello(self, link: Link) -> None:
        """Ask for time and desired state with an upload that carries nothing; each waits longer than the last."""
        self._hellos += 1
        precedence, patience = self._hello_precedence, 4 * min(self._hellos, 8)
        ask_spent, since_s = self._in_doubt()
        payload = Upload(ask_time=True, ask_spent=ask_spent, spent_since_s=since_s).encode()
        ask = partial(self._request, link, payload, precedence, "hello", patience=patience)
        asked_at = self._clock.monotonic()
        try:
            answered = await ask()
        except SessionLostError as lost:
            if not lost.renewable:
                raise LinkDownError(str(lost)) from lost
            try:
                answered = await ask()
            except SessionLostError as again:
                raise LinkDownError(str(again)) from again
        ack = Ack.decode(answered.payload)
        self._hello_wanted = False
        try:
            await self._heard(link, ack, answered.rtt_s, asked_at)
        except QueueFullError as failure:
            # The contact goes on: it is what makes room in the queue.
            log.warning("ack.unfinished", link=link.name, reason=str(failure))
        # Only now that it knows the time may a truck know from when on to ask.
        self._hello_wanted = ask_spent and since_s is None and self._in_doubt()[1] is not None

    def _settle(self, forwarder: Forwarder, settled: Settled, sent: tuple[int, ...]) -> bool:
        now_s = self._clock.at_least_s()
        self._queue.settle(settled, forwarder.epoch, now_s, sent=sent)
        return forwarder.forked and self._queue.fork(settled, forwarder.epoch, self._reseal, now_s)

    async def _acknowledged(self, link: Link, ack: Ack, rtt_s: float, forwarder: Forwarder, asked_at: float) -> None:
        if (ack.cumulative or ack.ranges) and not forwarder.is_exact:
            epoch, now_s = forwarder.epoch, self._clock.at_least_s()
            applied = await self._writer.run(lambda: self._queue.mark_delivered(ack, epoch, now_s))
            if applied.clashed:
                await self._writer.run(lambda: self._queue.renumber(applied.clashed, epoch, self._reseal))
        await self._heard(link, ack, rtt_s, asked_at)
        if self.forwarder.runs_low or forwarder is not self.forwarder:
            await self.reload()
        else:
            self.wake()

    async def _heard(self, link: Link, ack: Ack, rtt_s: float, asked_at: float) -> None:
        if ack.time_s is not None:
            await self._on_time(ack.time_s, rtt_s)
        await self._on_contact(Contact(link.name, ack, asked_at))

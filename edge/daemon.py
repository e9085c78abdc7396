"""The truck's daemon: opens what is durable, then runs collectors, recorder, uplink, downlink, bundles and classroom.

Layout of the data folder: `state.db` (queue, documents, settings), `links.db` (sessions and ledger), `identity/` (keys,
0600), `content/` (bundles), `staging/` (downloads under way). Any task that fails ends the process: the service manager
starts it again, and everything that was accepted is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from edge.account import keep_account
from edge.believed import Wanted, exchange_keys, expired, load_trust, read_wanted
from edge.board import board_name
from edge.bundles import Bundles
from edge.choice import Choice
from edge.classroom import make_classroom
from edge.classroom_server import ClassroomServer
from edge.clock import kernel_boot_id, load_clock, save_clock
from edge.collectors.base import RealClock
from edge.collectors.registry import build_collectors, plan_collectors
from edge.collectors.run import CollectorHealth, Supervisor
from edge.config import EdgeConfig, LinkSettings
from edge.configure import Configurator, Effective, effective
from edge.downlink import Downlink
from edge.fetch import Fetch
from edge.fitness import Fitness
from edge.habits import Habits
from edge.identity import load_identity
from edge.installer import Installer
from edge.knownpacks import KnownPacks
from edge.link import Link
from edge.linkbudget import apply_terms, caps_of, open_budgets
from edge.linkwatch import LinkWatch
from edge.lives import Lives
from edge.moment import look
from edge.notify import notify, watchdog_pause_s
from edge.recorder import Recorder
from edge.scrubbing import Repairs
from edge.series import open_series, split_tables
from edge.situation import Situation
from edge.spareroot import bring_back_root, keep_spare_root
from edge.spending import Spending, doubted, take_account
from edge.sticks import Sticks
from edge.triggers import Triggers, merged
from edge.uplink import Contact, Uplink
from protocol.documents import Config, parse_document
from protocol.numbers import PIECE_BYTES, DocumentKind, Precedence
from protocol.trust import version_name
from store.attempts import Attempts
from store.database import open_database
from store.documents import Documents
from store.links import open_links
from store.parcels import ParcelQueue
from store.schema import STATE
from store.settings import Settings
from store.staging import Staging
from store.staging import clean as clean_staging
from store.writer import Writer

log = structlog.get_logger("edge.daemon")

_MB = 1_000_000
_CONFIG_REJECTED, _CONFIG_CONFIRMED = "config.rejected", "config.confirmed"
_REJECTED_KEPT = 64
_HOUSEKEEPING_S = 3600.0
_WATCHDOG_S = 120.0  # each ping is a commit of about 16 kB: WatchdogSec=300 in the unit
# Every beat that reaches the disk is paid with its wear: between rows, one in a while is enough.
_BEAT_S = 600.0


class Edge:
    """A running truck; make one with `start`, then await `run`."""

    def __init__(self, config: EdgeConfig, data: Path, *, backoff_max_s: float | None = None) -> None:
        self.config = config
        self._data = data
        self._backoff_max_s = backoff_max_s if backoff_max_s is not None else float(config.retry_s_max)
        self.wanted = Wanted(None, (), {})
        self._supervising: asyncio.Task[None] | None = None
        self.supervisor: Supervisor | None = None
        self._rows: dict[str, int] = {}  # by collector, before its settings last changed
        self._closing = AsyncExitStack()

    async def start(self) -> None:
        """Open everything; nothing is sent yet. Raises `LocalError` with the next step, `OSError`."""
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        config, data = self.config, self._data
        self.keys, self.enrolment = load_identity(data / "identity")
        host = board_name()
        self.state = open_database(data / "state.db", schema=STATE, share_bytes=config.state_mb_max * _MB, host=host)
        self._closing.callback(self.state.close)
        terms = effective(config, None).terms
        self.links_store = open_links(data / "links.db", caps_of(terms), host=host, boot=kernel_boot_id())
        self._closing.callback(self.links_store.close)
        self.ledger = self.links_store.ledger
        settings = Settings(self.state)
        self.clock = load_clock(settings)
        self.habits = Habits(settings, self.clock, [each.name for each in config.link])
        self.budgets = open_budgets(terms, self.ledger, self.clock, self.habits.place)
        self.documents = Documents(self.state)
        bring_back_root(self.documents, data / "identity")
        self.trust = load_trust(self.documents, self.enrolment, self.clock)
        keep_spare_root(self.documents, data / "identity")
        self.queue = ParcelQueue(self.state, self.enrolment.truck, monotonic=self.clock.monotonic)
        rejected = settings.get(_CONFIG_REJECTED) or b""
        self.writer = Writer(self.state)
        self.writer.start()
        self._closing.push_async_callback(self.writer.close)
        self._settings = settings
        staging = data / "staging"
        staging.mkdir(parents=True, exist_ok=True)
        await self.writer.run(partial(clean_staging, self.state, staging))
        self.recorder = Recorder(
            truck=self.enrolment.truck,
            key=self.keys.signing,
            database=self.state,
            queue=self.queue,
            writer=self.writer,
            clock=self.clock,
            batch_age_s=config.batch_age_s,
            summary_after_s=config.summary_after_s,
            moment=lambda: look(self.links, self.budgets),
            on_parcel=self._on_parcel,
        )
        self.links = tuple(self._link(each) for each in config.link)
        for link in self.links:
            self._closing.push_async_callback(link.close)
        self.uplink = Uplink(
            self.links,
            self.queue,
            self.writer,
            self.clock,
            choice=Choice(self.links, self.budgets, self.clock, self.habits, patience_s=config.patience_s),
            on_contact=self._on_contact,
            on_time=self._on_time,
            reseal=self.recorder.reseal,
            on_fork=lambda: self.ledger.doubt(self.clock.at_least_s()),
            in_doubt=lambda: doubted(self.budgets.values()),
            backoff_max_s=self._backoff_max_s,
        )
        self._closing.push_async_callback(self.uplink.close)
        self.attempts = Attempts(data / "attempts")
        self.lives = Lives(self.attempts, data)
        self.installer = Installer(data / "content", bytes_max=config.content_mb_max * _MB)
        await asyncio.to_thread(self.installer.clean)
        self.known_packs = KnownPacks(settings, self.writer)
        self.repairs = Repairs(self.installer, settings, self.writer, start_fetch=self._start_fetch)
        self.bundles = Bundles(
            self.uplink,
            self.installer,
            start_fetch=self._start_fetch,
            send_receipt=self.recorder.receipt,
            wall_ms=lambda: int((self.clock.wall_s() or 0) * 1000),
            monotonic=self.clock.monotonic,
            attempts=self.attempts,
            known_packs=self.known_packs,
            fitness=Fitness(config).check,
            mend=self.repairs.mend_now,
        )
        self.downlink = Downlink(
            self.uplink,
            self.trust,
            self.documents,
            self.writer,
            self.clock,
            fetch=self._fetch_document,
            send_receipt=self.recorder.receipt,
            on_wanted=self._on_wanted,
            attempts=self.attempts,
        )
        self.configurator = Configurator(
            config,
            apply=self._apply,
            send_receipt=self.recorder.receipt,
            rejected=frozenset(rejected[at : at + 32] for at in range(0, len(rejected), 32)),
            remember_rejected=self._remember_rejected,
            confirmed=settings.get(_CONFIG_CONFIRMED),
            remember_confirmed=self._remember_confirmed,
            monotonic=self.clock.monotonic,
            attempts=self.attempts,
            truck=self.enrolment.truck,
        )
        self._closing.push_async_callback(self.configurator.close)
        self.situation = shown = Situation(self)
        self.sticks = Sticks(self)
        self._closing.push_async_callback(self.sticks.close)
        app = make_classroom(config.classroom, recorder=self.recorder, status=shown, content=shown, sticks=self.sticks)
        self.classroom = ClassroomServer(app, config.classroom.listen)
        await self.lives.tell(self.state, self.links_store.database, self.writer)
        await self.recorder.recover()
        self._closing.push_async_callback(self._stop_collectors)
        await self.configurator.start(await self.writer.run(self._configs))
        await self.classroom.start()
        self._closing.push_async_callback(self.classroom.stop)
        await self.situation.refresh()
        log.info("edge.started", truck=self.enrolment.truck, classroom=self.classroom.address)

    async def run(self) -> None:
        """Work until cancelled; raise what ended it."""
        notify("READY=1")
        with self.lives.one():
            await self._work()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            watch = LinkWatch(self.links, self.uplink.device_changed)
            for part in (self.uplink, watch, self.recorder, self.downlink, self.bundles, self.situation, self.repairs):
                group.create_task(part.run(), name=type(part).__name__.lower())
            group.create_task(self._keep_house(), name="housekeeping")
            group.create_task(keep_account(self.links_store, self.recorder, self.clock, self.config), name="ledger")
            group.create_task(self._watchdog(), name="watchdog")

    async def close(self) -> None:
        """Stop; what is queued stays queued."""
        notify("STOPPING=1")
        await self._closing.aclose()

    async def _stop_collectors(self) -> None:
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.gather(self._supervising, return_exceptions=True)
            self._supervising = None
            for each in self.health():
                self._rows[each.name] = each.rows
            self.supervisor = None

    def health(self) -> Sequence[CollectorHealth]:
        """Return how each collector does; its rows are counted since the daemon's start, over changes of settings."""
        found = () if self.supervisor is None else self.supervisor.health()
        return [replace(each, rows=each.rows + self._rows.get(each.name, 0)) for each in found]

    # -- the parts talk to each other through these --------------------------------------------------------------------

    def _link(self, settings: LinkSettings) -> Link:
        return Link(
            settings,
            keys=self.keys,
            gateways=self.enrolment.addresses,
            gateway_keys=partial(exchange_keys, self.trust, self.enrolment),
            contexts=self.links_store.contexts,
            spending=Spending(self.budgets[settings.name]),
            monotonic=self.clock.monotonic,
        )

    async def _on_parcel(self) -> None:
        self.situation.touch()
        await self.uplink.reload()

    async def _on_contact(self, contact: Contact) -> None:
        self.situation.touch()
        self.bundles.heard()
        await self.configurator.contact(contact.asked_at)
        if take_account(self.budgets.values(), contact.ack.spent, contact.ack.spent_since_s):
            self.uplink.budget_changed()
        if contact.ack.time_s is not None:
            await self.recorder.use_codec(contact.ack.codec)
        if contact.ack.schemas:
            await self.recorder.offer_again(contact.ack.schemas)
        await self.downlink.contact(contact)

    async def _on_time(self, time_s: int, rtt_s: float) -> None:
        was_known = self.clock.wall_s() is not None
        if not self.clock.learn(time_s, rtt_s):
            return
        is_known = self.clock.wall_s() is not None
        log.info("clock.synced" if is_known else "clock.doubted", time_s=time_s)
        if is_known and not was_known:
            # First what is to be told: a restart between the two learns the time, and tells it, once more.
            await self.recorder.clock_known()
        await self.writer.run(self._save_clock)

    def _save_clock(self) -> None:
        save_clock(self._settings, self.clock)

    async def _on_wanted(self, wanted: Wanted) -> None:
        self.wanted = wanted
        await self.writer.run(partial(keep_spare_root, self.documents, self._data / "identity"))
        if wanted.config is not None:
            await self.configurator.want(*wanted.config)
        self.bundles.want(wanted.rollouts, wanted.manifests)

    async def _remember_rejected(self, digest: bytes) -> None:
        def remember() -> None:
            known = self._settings.get(_CONFIG_REJECTED) or b""
            self._settings.put(_CONFIG_REJECTED, (known + digest)[-32 * _REJECTED_KEPT :])

        await self.writer.run(remember)

    async def _apply(self, settings: Effective) -> None:
        """Make a configuration effective: the batches' age, the budgets, and the collectors started anew."""
        tables, series = split_tables(settings.collectors)
        plans = plan_collectors(tables)
        self.recorder.batch_age_s = settings.batch_age_s
        self.bundles.policy = settings.content
        self.installer.bytes_max = settings.content.bytes_max or self.config.content_mb_max * _MB
        apply_terms(self.budgets, self.ledger, settings.terms)
        await self.writer.run(partial(self.habits.set_rules, settings.power, settings.timetable))
        for link in self.links:
            link.price = self.budgets[link.name].terms.tariff.price_per_mb_milli / 1000
        await self._stop_collectors()
        built = build_collectors(plans)
        for problem in built.problems:
            log.warning("collector.unusable", collector=problem.name, reason=problem.error)
        triggers, channels = Triggers(self.recorder), {}
        for collector in built.collectors:
            mine = series[collector.name]
            schema = await open_series(self.recorder, collector, mine, self._data)
            channels[collector.name] = schema.channels
            await triggers.watch(collector.name, schema.channels, merged(mine, collector.name, settings.limits))
        self.supervisor = Supervisor(
            built.collectors,
            on_row=self.habits.watch(triggers.on_row, channels),
            on_event=lambda name, values: self.recorder.event(name, Precedence.NORMAL, values),
            clock=RealClock(self.clock.monotonic),
        )
        self._supervising = asyncio.create_task(self.supervisor.run(), name="collectors")

    async def _remember_confirmed(self, digest: bytes) -> None:
        await self.writer.run(lambda: self._settings.put(_CONFIG_CONFIRMED, digest))

    def open_staging(self, digest: bytes, size: int) -> Staging:
        """Make or resume a download; in the writer's thread. Raises `QuotaExceededError`, `OSError`."""
        bytes_max = self.config.content_mb_max * _MB
        return Staging(self.state, self._data / "staging", digest, size, PIECE_BYTES, bytes_max=bytes_max)

    async def _start_fetch(self, digest: bytes, size: int, precedence: Precedence, cause: str) -> Fetch:
        staging = await self.writer.run(partial(self.open_staging, digest, size))
        return Fetch(
            self.uplink,
            self.writer,
            staging,
            precedence=precedence,
            cause=cause,
            monotonic=self.clock.monotonic,
        )

    async def _fetch_document(self, digest: bytes, size: int, precedence: Precedence, cause: str) -> bytes:
        fetch = await self._start_fetch(digest, size, precedence, cause)
        path = await fetch.run()
        try:
            return await asyncio.to_thread(path.read_bytes)
        finally:
            await fetch.discard()

    def _configs(self) -> tuple[tuple[bytes, Config], ...]:
        """Return the configuration that is wanted, as stored, and the one before it."""
        wanted = read_wanted(self.documents, self.trust).config
        if wanted is None:
            return ()
        before = self.documents.previous(DocumentKind.CONFIG, version_name(wanted[1]))
        return (wanted,) if before is None else (wanted, (before.digest, parse_document(before.signed, Config)[0]))

    async def _keep_house(self) -> None:
        told: tuple[str, ...] = ()
        while True:
            told = await self._tell_expired(told)
            await asyncio.sleep(_HOUSEKEEPING_S)
            await self.writer.run(self.queue.prune)
            await self.uplink.reload()
            await self.writer.run(partial(self.habits.keep, self.habits.observe(self.links)))
            if self.clock.wall_s() is not None:
                self.clock.raise_floor()
                await self.writer.run(self._save_clock)

    async def _tell_expired(self, told: tuple[str, ...]) -> tuple[str, ...]:
        """Raise an alarm when a document has expired that all news hang on; return what has been told."""
        found = await self.writer.run(lambda: expired(self.documents, self.trust, self.clock.at_least_s()))
        for each in set(found) - set(told):
            log.error("trust.expired", document=each)
            await self.recorder.event("trust.expired", Precedence.PRIORITY, (("document", each),))
        return found

    async def _watchdog(self) -> None:
        # A ping proves that the loop turns and that the database's thread does; now and then, that the disk takes it.
        # None comes while something that was begun does not end: what it is, the next daemon knows.
        beat_at = -_BEAT_S
        pause_s = watchdog_pause_s(_WATCHDOG_S)
        while True:
            now = self.clock.monotonic()
            if now - beat_at >= _BEAT_S:
                await self.writer.run(lambda: self._settings.put_int("watchdog.beat", int(self.clock.monotonic())))
                beat_at = now
            else:
                await self.writer.run(lambda: None)
            if not self.attempts.overdue():
                notify("WATCHDOG=1")
            await asyncio.sleep(pause_s)

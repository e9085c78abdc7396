"""The gateway as a whole: one process that answers trucks over CoAP and people over HTTP, on one database and folder.

Layout of the data folder: `fleet.db`, `keys/` (0600), `blobs/` (bundle files by digest), `packs/`,
`*.attempts` (what was begun and did not end).
"""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from gateway.admission import Admission
from gateway.api.app import make_app
from gateway.api.auth import new_token, token_sha256
from gateway.api.server import ApiServer, start_api
from gateway.api.services import Services, TrustState
from gateway.budgetwatch import BudgetWatch
from gateway.coap import Site
from gateway.commits import GroupCommit
from gateway.config import DEFAULT_TEXT, GatewayConfig, parse_config, split_listen
from gateway.console.app import add_console
from gateway.couriers import Couriers
from gateway.documents import Documents
from gateway.fastlane import FastLane
from gateway.fleetfile import FleetTruck, load_fleet
from gateway.handlers import Handlers
from gateway.handshakes import Handshakes
from gateway.ingest import Ingest
from gateway.ledger import GatewayLedger
from gateway.mail import MailTask, read_password
from gateway.oidc import OidcProvider, read_secret
from gateway.ownkeys import CREDENTIALS as CREDENTIALS
from gateway.ownkeys import OwnKeys, make_keys
from gateway.ownkeys import load_keys as load_keys
from gateway.ownkeys import places_of_keys as places_of_keys
from gateway.packs import Packs
from gateway.peers import Peers
from gateway.rollups import RollupTask
from gateway.telemetry import Telemetry
from gateway.truckwatch import TruckWatch
from gateway.webhooks import WebhookTask
from protocol.errors import LocalError, PeerError
from protocol.joincode import JoinCode
from store.attempts import Attempts
from store.blobs import BlobStore
from store.coapcontext import MeteredContext, server_context
from store.files import publish
from store.fleet.fleet import FleetStore, migrate
from store.lock import FileLock
from store.notify import notify, watchdog_pause_s

log = structlog.get_logger("gateway.daemon")

_WATCHDOG_S = 60.0  # WatchdogSec=300 in the unit


def database_url(config: GatewayConfig, data: Path) -> str:
    """Return the database's URL: the configured one, or fleet.db in the data folder."""
    return config.database or f"sqlite:///{data.resolve()}/fleet.db"


def folder_lock(data: Path) -> FileLock:
    """Return the lock that a gateway holds while it serves from this folder; the kernel frees that of a dead one."""
    return FileLock(data / "gateway.lock")


async def initialise(folder: Path, *, coap: str, http: str) -> tuple[Path, str]:
    """Make a data folder, its configuration, keys and database; return the configuration's path and the first token.

    Raises `LocalError` when the folder holds a gateway already, and when an address is none.
    """
    path = folder / "gateway.toml"
    if path.exists():
        raise LocalError(f"{path} exists: this folder holds a gateway already")
    text = DEFAULT_TEXT.format(coap=coap, http=http, port=coap.rpartition(":")[2])
    # Before anything is made: what a person typed goes into this file.
    parse_config(text, f"{coap}, {http}")
    make_keys(folder / "keys")
    url = database_url(GatewayConfig(), folder)
    await migrate(url)
    fleet = await FleetStore.open(url)
    try:
        token = new_token()
        await fleet.put_token(token_sha256(token), "first", "admin", now_ms(), None)
    finally:
        await fleet.close()
    publish(path, text.encode())
    return path, token


def now_ms() -> int:
    """Return wall time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Gateway:
    """A running gateway; make one with `start`."""

    def __init__(self, config: GatewayConfig, data: Path, *, clock_ms: Callable[[], int] = now_ms) -> None:
        self._config = config
        self._data = data
        self._now_ms = clock_ms
        self._tasks: list[asyncio.Task[None]] = []
        self._change_seen = self._document_seen = 0
        self._lock = folder_lock(data)
        self.fleet: FleetStore
        self.context: MeteredContext
        self.lane: FastLane
        self.api: ApiServer
        self.documents: Documents
        self._packs: Packs
        self._ledger: GatewayLedger

    async def start(self) -> None:
        """Open the database, bind both ports and start the background work."""
        config, data = self._config, self._data
        keys = self._keys = OwnKeys(data / "keys")
        self._lock.take()
        url = database_url(config, data)
        await migrate(url)
        self.fleet = await FleetStore.open(url)
        self._change_seen = self._document_seen = await self.fleet.changes.newest()
        blobs = BlobStore(data / "blobs")
        self.documents = Documents(self.fleet, keys.freshness_for, now_ms=self._now_ms)
        await self.documents.load()
        commits = GroupCommit(self.fleet)
        # One file for each: what is checked on its way in may be decoded at the same moment.
        checking, decoding = self._attempts = Attempts(data / "ingest.attempts"), Attempts(data / "decoding.attempts")
        ingest = Ingest(self.fleet, commits, now_ms=self._now_ms, attempts=checking)
        peers = Peers(self.fleet, entropy=os.urandom, now_ms=self._now_ms)
        self._packs = Packs(data / "packs", blobs, self.fleet, workers=config.pack_workers)
        handlers = Handlers(
            fleet=self.fleet,
            peers=peers,
            ingest=ingest,
            documents=self.documents,
            packs=self._packs,
            gateway_keys=lambda: [each.public for each in keys.keys.exchange_keys.values()],
            now_ms=self._now_ms,
        )
        handshakes = Handshakes(lambda: keys.keys.exchange_keys, self.fleet, now=time.monotonic)
        admission = Admission(
            monotonic=time.monotonic, knows=lambda kid: kid in peers or kid in handshakes, verifies=peers.verifies
        )
        site = Site(peers, handshakes, handlers.table(), admission)
        self._ledger = GatewayLedger(self.fleet, now_ms=self._now_ms)
        self.context = await server_context(
            site,
            bind=split_listen(config.coap.listen),
            on_datagram=self._ledger.on_datagram,
            on_attribution=self._ledger.on_attribution,
            before_send=admission.check_answer,
            admit=admission.admit,
        )
        site.meter = self.context.meter
        self.lane = FastLane(self.context.interface, peers, handlers.upload, admission, handlers.burst)
        telemetry = Telemetry(self.fleet, decoding)
        couriers = Couriers(
            self.fleet, self.documents, ingest, keys, self._packs, now_ms=self._now_ms, entropy=os.urandom
        )
        await self._start_api(blobs, telemetry, keys, couriers)
        for name, work in (
            ("commits", commits.run),
            ("ledger", self._ledger.run),
            ("rollups", RollupTask(self.fleet, decoding).run),
            ("budgets", BudgetWatch(self.fleet, now_ms=self._now_ms).run),
            ("trucks", TruckWatch(self.fleet, config.alerts, now_ms=self._now_ms).run),
            ("webhooks", WebhookTask(self.fleet, now_ms=self._now_ms).run),
            *self._mail_task(),
            ("documents", self.documents.run),
            ("rollouts", self.documents.rollouts.run),
            ("revocations", lambda: self._watch_trucks(peers)),
            ("trust", self._watch_documents),
            ("watchdog", self._watchdog),
        ):
            self._tasks.append(asyncio.create_task(_forever(name, work), name=name))
        # Everything made so far lives as long as the process: collecting it again and again would stall answers.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        log.info("gateway.started", coap=self.coap_address, http=f"{self.api.address}:{self.api.port}")

    @property
    def coap_address(self) -> str:
        """The bound CoAP address."""
        host, port = self.context.address
        return f"{host}:{port}"

    async def close(self) -> None:
        """Stop answering, write what was counted, close the database."""
        self.lane.close()
        await self.context.shutdown()
        await self.api.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._ledger.flush()
        await self._packs.close()
        await self.fleet.close()
        self._lock.release()

    async def _start_api(self, blobs: BlobStore, telemetry: Telemetry, keys: OwnKeys, couriers: Couriers) -> None:
        http = self._config.http
        services = Services(
            now_ms=self._now_ms,
            make_code=self.join_code,
            accept_document=self.documents.accept,
            telemetry=telemetry,
            freshness_key=lambda: keys.freshness_for(self.documents.root).public,
            trust=lambda: TrustState(keys.keys, self.documents.warnings(), self.documents.unsigned),
            is_revoked=self.documents.is_revoked,
            rollouts=self.documents.rollouts,
            sign_in=self._sign_in(),
            described=self._described,
            couriers=couriers,
            offer_pack=self._packs.offer,
            registry=CollectorRegistry(),
        )
        host, port = split_listen(http.listen)
        tls = None
        if http.certificate and http.private_key:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(http.certificate, http.private_key)
        app = make_app(self.fleet, blobs, services)
        add_console(app)
        self.api = await start_api(app, host, port, ssl_context=tls)

    def _described(self) -> dict[str, FleetTruck]:
        """Return the trucks of the fleet file, read anew: people edit it while the gateway runs."""
        if self._config.fleet is None:
            return {}
        return {each.name: each for each in load_fleet(self._data / self._config.fleet)}

    def _mail_task(self) -> list[tuple[str, Callable[[], object]]]:
        mail = self._config.alerts.mail
        if mail is None:
            return []
        password = None if mail.password_file is None else read_password(self._data / mail.password_file)
        task = MailTask(self.fleet, self._config.alerts, mail, password=password, now_ms=self._now_ms)
        return [("mail", task.run)]

    def _sign_in(self) -> OidcProvider | None:
        oidc = self._config.oidc
        if oidc is None:
            return None
        secret = None if oidc.client_secret_file is None else read_secret(self._data / oidc.client_secret_file)
        return OidcProvider(oidc, client_secret=secret, now_s=lambda: self._now_ms() // 1000)

    def join_code(self, truck: str, secret: bytes) -> str:
        """Return the text of an enrolment code; raise `PeerError` with the next step while there is no root."""
        root = self.documents.root_digest
        if root is None:
            raise PeerError("this gateway has no root yet: run `digitruck trust init` and `digitruck trust push` first")
        self.documents.check_confirmed()
        number, key = self._keys.exchange_for(self.documents.root)
        return JoinCode(truck, self._config.coap.public, secret, key.public, root, number).text()

    async def _watchdog(self) -> None:
        # A ping proves that the loop turns and that the database takes a transaction. None comes while something that
        # was begun does not end: what it is, the next process knows.
        pause_s = watchdog_pause_s(_WATCHDOG_S)
        while True:
            await self.fleet.begin_and_end()
            if not any(each.overdue() for each in self._attempts):
                notify("WATCHDOG=1")
            await asyncio.sleep(pause_s)

    async def _watch_trucks(self, peers: Peers) -> None:
        # Begun anew after a failure, it hears what was committed in between.
        async for change in self.fleet.changes.subscribe(after=self._change_seen):
            self._change_seen = change.id
            peers.changed(change)

    async def _watch_documents(self) -> None:
        # Apart from the trucks' changes, which must not wait for a look at the database.
        async for change in self.fleet.changes.subscribe(after=self._document_seen):
            self._document_seen = change.id
            await self.documents.changed(change)
            self.documents.rollouts.changed(change)


async def _forever(name: str, work: Callable[[], object]) -> None:
    """Run a background task again whenever it fails; only cancelling it ends it."""
    pause_s = 1.0
    while True:
        try:
            await work()  # type: ignore[misc]
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("task.failed", task=name)
        await asyncio.sleep(pause_s)
        pause_s = min(60.0, pause_s * 2)

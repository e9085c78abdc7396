"""The gateway's CoAP side on loopback without its HTTP side, and a scripted truck that talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiocoap
from aiocoap import oscore
from aiocoap.message import Message
from aiocoap.numbers import codes
from aiocoap.numbers.constants import Unreliable
from aiocoap.transports.oscore import OSCOREAddress

from gateway.admission import Admission
from gateway.coap import Site
from gateway.commits import GroupCommit
from gateway.documents import Documents
from gateway.fastlane import FastLane
from gateway.handlers import Handlers
from gateway.handshakes import Handshakes
from gateway.ingest import Ingest
from gateway.ledger import GatewayLedger
from gateway.packs import Packs
from gateway.peers import Peers
from protocol import batch, cose, edhoc
from protocol.messages import Ack, Batch, Enrolled, EnrolRequest, Parcel, SchemaOffer, Upload, enrol_proof, seal
from protocol.numbers import PATH_ENROL, PATH_EXCHANGE, PATH_UPLOAD, ParcelKind, Precedence
from protocol.oscore import InitiatingContext, LinkContext, Secrets
from protocol.schema import Schema
from store.blobs import BlobStore
from store.coapcontext import MeteredContext, client_context, server_context
from store.coapmeter import Address
from store.fleet.fleet import FleetStore
from store.fleet.records import TruckRecord
from tests.gateway.fleets import NOW_MS, SCHEMA, Signers, truck_key

GATEWAY_KEY = edhoc.generate_key()
EPOCH = 0xFEED_0000_0000_0002
ANSWER_S = 3.0


class Clock:
    """A wall clock and a monotonic one that a test sets."""

    def __init__(self) -> None:
        self.ms = NOW_MS
        self.s = 1_000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.s

    def pass_s(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        self.s += seconds


@dataclass
class Side:
    """Everything between a socket and the fleet store."""

    fleet: FleetStore
    clock: Clock
    documents: Documents
    ingest: Ingest
    peers: Peers
    handshakes: Handshakes
    packs: Packs
    ledger: GatewayLedger
    admission: Admission
    site: Site
    context: MeteredContext
    lane: FastLane

    @property
    def address(self) -> Address:
        return self.context.address


@asynccontextmanager
async def open_side(
    fleet: FleetStore, folder: Path, clock: Clock, *, host: str = "127.0.0.1", fast: bool = True
) -> AsyncIterator[Side]:
    """Serve until the block ends; another one after it on the same store is a gateway that was restarted.

    Without `fast` everything goes through aiocoap.
    """
    documents = Documents(fleet, lambda _: Signers().gateway, now_ms=clock.now_ms)
    await documents.load()
    commits = GroupCommit(fleet)
    ingest = Ingest(fleet, commits, now_ms=clock.now_ms)
    peers = Peers(fleet, entropy=os.urandom, now_ms=clock.now_ms)
    packs = Packs(folder / "packs", BlobStore(folder / "blobs"), fleet)
    ledger = GatewayLedger(fleet, now_ms=clock.now_ms)
    handshakes = Handshakes(lambda: {0: GATEWAY_KEY}, fleet, now=clock.monotonic)
    admission = Admission(
        monotonic=clock.monotonic, knows=lambda kid: kid in peers or kid in handshakes, verifies=peers.verifies
    )
    handlers = Handlers(
        fleet=fleet,
        peers=peers,
        ingest=ingest,
        documents=documents,
        packs=packs,
        gateway_keys=lambda: [GATEWAY_KEY.public],
        now_ms=clock.now_ms,
    )
    site = Site(peers, handshakes, handlers.table(), admission)
    context = await server_context(
        site,
        bind=(host, 0),
        on_datagram=ledger.on_datagram,
        on_attribution=ledger.on_attribution,
        before_send=admission.check_answer,
        admit=admission.admit,
    )
    site.meter = context.meter
    lane = FastLane(context.interface, peers, handlers.upload, admission, handlers.burst)
    if not fast:
        lane.close()
    seen = await fleet.changes.newest()

    async def watch() -> None:
        async for change in fleet.changes.subscribe(after=seen):
            peers.changed(change)

    tasks = [asyncio.create_task(commits.run()), asyncio.create_task(watch())]
    try:
        yield Side(fleet, clock, documents, ingest, peers, handshakes, packs, ledger, admission, site, context, lane)
    finally:
        lane.close()
        await context.shutdown()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await packs.close()


@dataclass
class ScriptedTruck:
    """A truck that says what a test tells it to, over one socket; `session` is the context of the link in use."""

    name: str
    address: Address
    coap: MeteredContext
    signing: cose.SigningKey
    edhoc_key: edhoc.EdhocKey = field(default_factory=edhoc.generate_key)
    gateway_public: bytes = GATEWAY_KEY.public
    session: LinkContext | None = None
    sequence: int = 0

    async def raw(self, message: Message, *, answer_s: float = ANSWER_S) -> Message:
        """Send a request as it is, and return the response."""
        message.remote = self.coap.remote_at(self.address)
        async with asyncio.timeout(answer_s):
            return await self.coap.request(message, handle_blockwise=False).response

    async def first_message(self, initiator: edhoc.Initiator, **options: Any) -> Message:
        message = Message(
            code=codes.POST, transport_tuning=Unreliable, uri_path=[PATH_EXCHANGE], payload=initiator.message_1()
        )
        return await self.raw(message, **options)

    async def handshake(self, link: str = "lte", *, joining: bool = False) -> InitiatingContext:
        """Run EDHOC up to message_3, which rides on the next request."""
        initiator = edhoc.Initiator(self.edhoc_key, self.gateway_public, link=link, joining=joining)
        response = await self.first_message(initiator)
        assert response.code == codes.CHANGED, response.code
        message_3, secrets = initiator.finish(response.payload)
        session = new_session(secrets, message_3)
        self.session = session
        return session

    async def ask(
        self,
        path: str,
        payload: bytes = b"",
        *,
        code: codes.Code = codes.POST,
        query: tuple[str, ...] = (),
        session: LinkContext | None = None,
        answer_s: float = ANSWER_S,
        tuning: Any = Unreliable,
        **options: Any,
    ) -> Message:
        """Send one OSCORE request; a refusal without protection raises `oscore.NotAProtectedMessage`."""
        used = session or self.session
        assert used is not None
        message = Message(
            code=code, transport_tuning=tuning, uri_path=path.split("/"), uri_query=list(query), payload=payload
        )
        for name, value in options.items():
            setattr(message.opt, name, value)
        message.remote = OSCOREAddress(used, self.coap.remote_at(self.address))
        async with asyncio.timeout(answer_s):
            return await self.coap.request(message, handle_blockwise=False).response

    async def upload(self, *sealed: bytes, epoch: int | None = EPOCH, ask_time: bool = False, **options: Any) -> Ack:
        """POST /u, and return its acknowledgement."""
        answer = await self.ask(PATH_UPLOAD, Upload(sealed, epoch, ask_time).encode(), **options)
        assert answer.code == codes.CHANGED, (answer.code, answer.payload)
        return Ack.decode(answer.payload)

    def seal(
        self,
        kind: ParcelKind,
        payload: bytes,
        *,
        sequence: int | None = None,
        epoch: int = EPOCH,
        schema: Schema | None = None,
        key: cose.SigningKey | None = None,
    ) -> bytes:
        """Return a sealed parcel under the next sequence."""
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        parcel = Parcel(epoch, sequence, Precedence.NORMAL, kind, payload)
        return seal(key or self.signing, parcel, self.name, schema.digest if schema is not None else None)

    def offer(self, schema: Schema = SCHEMA, number: int = 1, **options: Any) -> bytes:
        return self.seal(ParcelKind.SCHEMA, SchemaOffer(number, schema.encoded).encode(), **options)

    def batch(self, rows: Any, *, schema: Schema = SCHEMA, number: int = 1, **options: Any) -> bytes:
        payload = Batch(number, options.pop("boot", None), batch.encode(schema, rows)).encode()
        return self.seal(ParcelKind.BATCH, payload, schema=schema, **options)

    def enrol_request(self, secret: bytes, **changes: Any) -> EnrolRequest:
        name = changes.pop("truck", self.name)
        key = changes.pop("key", self.signing)
        proof = enrol_proof(name, secret, self.signing.public, self.edhoc_key.credential, GATEWAY_KEY.public)
        return EnrolRequest(name, secret, self.signing.public, key.sign(proof))

    async def enrol(self, secret: bytes, **changes: Any) -> Enrolled:
        """Run EDHOC as a truck that joins, and redeem a code."""
        await self.handshake(joining=True)
        answer = await self.ask(PATH_ENROL, self.enrol_request(secret, **changes).encode())
        assert answer.code == codes.CHANGED, (answer.code, answer.payload)
        return Enrolled.decode(answer.payload)

    async def move(self) -> None:
        """Go on from another port, as after a NAT forgot its mapping."""
        await self.coap.shutdown()
        self.coap = await client_context(bind=("127.0.0.1", 0), on_datagram=lambda _: None)


def new_session(secrets: Secrets, message_3: bytes) -> InitiatingContext:
    return InitiatingContext(secrets, message_3, first_sequence=0, reserve=lambda below: None, echo=None)


def resumed(session: LinkContext, secrets: Secrets) -> LinkContext:
    return LinkContext(
        secrets, first_sequence=session.sender_sequence_number, reserve=lambda below: None, echo=os.urandom(8)
    )


@asynccontextmanager
async def open_truck(address: Address, name: str = "ke-arrow") -> AsyncIterator[ScriptedTruck]:
    """A truck with keys of its own that the gateway does not know yet."""
    coap = await client_context(bind=("127.0.0.1", 0), on_datagram=lambda _: None)
    truck = ScriptedTruck(name, address, coap, truck_key(name))
    try:
        yield truck
    finally:
        with contextlib.suppress(aiocoap.error.Error):
            await truck.coap.shutdown()


async def make_code(fleet: FleetStore, truck: str = "ke-arrow", *, expires_ms: int = NOW_MS + 60_000) -> bytes:
    """Return the secret of a fresh enrolment code."""
    secret = os.urandom(16)
    await fleet.create_enrolment(truck, "kenya", cose.digest(secret), expires_ms, "a test", now_ms=NOW_MS)
    return secret


async def enrol_directly(fleet: FleetStore, truck: ScriptedTruck) -> TruckRecord:
    """Make a truck known without an exchange."""
    secret = await make_code(fleet, truck.name)
    credential = truck.edhoc_key.credential
    return await fleet.redeem_enrolment(
        cose.digest(secret), truck.name, truck.signing.public, credential, edhoc.credential_kid(credential), NOW_MS
    )


def rows_from(start_s: int, count: int = 3) -> list[tuple[int, tuple[int | None, ...]]]:
    return [(start_s + 60 * index, (2600 + index, 40 * index)) for index in range(count)]


async def unprotected(answer: Any) -> bool:
    """Return whether an exchange ended with an answer that is not protected: the session is not believed."""
    try:
        await answer
    except oscore.NotAProtectedMessage:
        return True
    return False

"""What the gateway answers to an authenticated truck, resource by resource (SPEC.md, table of resources)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog
from aiocoap.numbers import codes

from gateway.budgets import month_of
from gateway.coap import Answer, Handler, Request
from gateway.documents import Documents
from gateway.ingest import Ingest
from gateway.packs import Packs
from gateway.peers import Peers
from protocol import cose, edhoc
from protocol.errors import MalformedError, PeerError, SignatureError
from protocol.messages import Ack, BurstRequest, Enrolled, EnrolRequest, PackRequest, PiecesRequest, Upload, enrol_proof
from protocol.numbers import (
    CODEC_ASSUMED,
    DESIRED_DIGEST_BYTES,
    LINKS_MAX,
    PATH_BURST,
    PATH_DOCUMENT,
    PATH_ENROL,
    PATH_PACK,
    PATH_PIECES,
    PATH_UPLOAD,
    PIECE_BYTES,
    ParcelKind,
    Precedence,
)
from protocol.schema import Codec
from store.fleet.errors import EnrolmentError, EnrolmentReason
from store.fleet.fleet import FleetStore
from store.fleet.records import TruckRecord

log = structlog.get_logger("gateway.handlers")

# What UDP and OSCORE leave of the 64 KiB that IP can carry, in fragments.
_DATAGRAM_BYTES_MAX = 60_000
_LARGE_BYTES_MAX = 32 << 20
# A billing period is no longer than a month; what was before it nobody needs to know.
_SPENT_MS_MAX = 62 * 86_400_000
_HEARD_AGAIN_MS, _HEARD_MAX = 10_000, 50_000
_CAUSES = {kind: kind.name.lower() for kind in ParcelKind}


class Handlers:
    """The handlers of one gateway, by (code, path)."""

    def __init__(
        self,
        *,
        fleet: FleetStore,
        peers: Peers,
        ingest: Ingest,
        documents: Documents,
        packs: Packs,
        gateway_keys: Callable[[], Iterable[bytes]],
        now_ms: Callable[[], int],
    ) -> None:
        self._fleet = fleet
        self._peers = peers
        self._ingest = ingest
        self._documents = documents
        self._packs = packs
        self._gateway_keys = gateway_keys
        self._now_ms = now_ms
        self._large: OrderedDict[bytes, bytes] = OrderedDict()
        self._heard_at: OrderedDict[str, tuple[int, str, str]] = OrderedDict()

    def table(self) -> dict[tuple[int, str], Handler]:
        """Return the map that the site dispatches by."""
        return {
            (int(codes.POST), PATH_UPLOAD): self.upload,
            (int(codes.GET), PATH_DOCUMENT): self.document,
            (int(codes.POST), PATH_DOCUMENT): self.learn_document,
            (int(codes.FETCH), PATH_PIECES): self.pieces,
            (int(codes.FETCH), PATH_BURST): self.first_of_burst,
            (int(codes.FETCH), PATH_PACK): self.pack,
            (int(codes.POST), PATH_ENROL): self.enrol,
        }

    async def upload(self, request: Request) -> Answer:
        """POST /u: parcels up, acknowledgement down."""
        truck = _truck(request)
        upload = Upload.decode(request.payload)
        ack, kinds = await self._ingest.upload(truck, request.peer.link, upload)
        if not upload.parcels:
            # Parcels say so themselves, in the transaction that stores them.
            await self._heard(truck.name, request)
        if ParcelKind.RECEIPT in kinds:
            # The feed will say so too, but this very answer should not name what the receipt has just reported.
            self._peers.forget_record(truck.name)
        since_ms = self._spent_from_ms(upload)
        fresh = await self._peers.record(truck.name) or truck
        desired = fresh.desired_digest if fresh.desired_digest != fresh.desired_reported else None
        answer = Ack(
            cumulative=ack.cumulative,
            ranges=ack.ranges,
            desired=desired[:DESIRED_DIGEST_BYTES] if desired is not None else None,
            time_s=self._now_ms() // 1000 if upload.ask_time else None,
            refused=ack.refused,
            schemas=ack.schemas,
            epoch_unknown=ack.epoch_unknown,
            spent=await self._spent(truck.name, since_ms) if upload.ask_spent else None,
            spent_since_s=None if not upload.ask_spent or upload.spent_since_s is None else since_ms // 1000,
            codec=int(max(Codec)) if upload.ask_time else CODEC_ASSUMED,
        )
        # The whole datagram is booked on what its first parcel is; several kinds share one only when all are small.
        cause = _CAUSES[kinds[0]] if kinds else "hello"
        return Answer(answer.encode(), cause)

    async def _heard(self, truck: str, request: Request) -> None:
        """Note where a truck was heard, unless that was just noted: each time is a transaction of its own."""
        now_ms, link, address = self._now_ms(), request.peer.link, request.address
        last_ms, *last = self._heard_at.get(truck, (0, "", ""))
        if last == [link, address] and 0 <= now_ms - last_ms < _HEARD_AGAIN_MS:
            return
        await self._fleet.heard(truck, link, now_ms, address)
        self._heard_at[truck] = now_ms, link, address
        self._heard_at.move_to_end(truck)
        if len(self._heard_at) > _HEARD_MAX:
            self._heard_at.popitem(last=False)

    def _spent_from_ms(self, upload: Upload) -> int:
        """Return from when on a truck wants to hear what it spent: the beginning of this month, or earlier."""
        month_ms, _ = month_of(self._now_ms())
        if upload.spent_since_s is None:
            return month_ms
        return max(self._now_ms() - _SPENT_MS_MAX, min(month_ms, upload.spent_since_s * 1000))

    async def _spent(self, truck: str, since_ms: int) -> tuple[tuple[str, int, int], ...]:
        """Return what a truck spent since then (link, flash, the rest), for one that has forgotten it."""
        spent: dict[str, list[int]] = {}
        for each in await self._fleet.ledger(truck, since_ms, month_of(self._now_ms())[1]):
            spent.setdefault(each.link, [0, 0])[each.precedence is not Precedence.FLASH] += each.bytes
        known = [(link, flash, other) for link, (flash, other) in spent.items() if link and min(flash, other) >= 0]
        return tuple(sorted(known, key=lambda each: -sum(each[1:]))[:LINKS_MAX])

    async def document(self, request: Request) -> Answer:
        """GET /d?DIGEST: a small document; `desired` in place of a digest names the asking truck's own state."""
        truck = _truck(request)
        if request.query == ("desired",):
            desired = await self._fleet.desired(truck.name)
            if desired is None:
                raise PeerError("nothing is desired of this truck yet")
            return Answer(desired.signed, "document", Precedence.PRIORITY)
        record = await self._fleet.document(_digest(request.query))
        if record is None:
            raise PeerError("no such document is here")
        if len(record.signed) > _DATAGRAM_BYTES_MAX:
            raise PeerError("the document is larger than a datagram: fetch it in pieces")
        return Answer(record.signed, "document", Precedence.PRIORITY)

    async def learn_document(self, request: Request) -> Answer:
        """POST /d: a root or role table that the truck has and this gateway, since it was restored, has not."""
        await self._documents.accept_from_truck(request.payload, _truck(request).name)
        return Answer(b"", "document", Precedence.PRIORITY)

    async def pieces(self, request: Request) -> Answer:
        """FETCH /p: one piece of a pack or of a large document."""
        _truck(request)
        wanted = PiecesRequest.decode(request.payload)
        (data,), cause, precedence = await self._read(wanted.digest, [wanted.first])
        return Answer(data, cause, precedence)

    async def burst(self, request: Request, wanted: BurstRequest) -> tuple[list[bytes], str, Precedence]:
        """FETCH /b: the pieces of a pack or of a large document, their cause and their precedence."""
        _truck(request)
        return await self._read(wanted.digest, wanted.pieces())

    async def first_of_burst(self, request: Request) -> Answer:
        """FETCH /b by the slow lane, which has one answer for a request: its first piece."""
        (data, *_), cause, precedence = await self.burst(request, BurstRequest.decode(request.payload))
        return Answer(b"\0" + data, cause, precedence)

    async def _read(self, digest: bytes, wanted: list[int]) -> tuple[list[bytes], str, Precedence]:
        pieces = self._packs.read_pieces(digest, wanted)
        cause, precedence = "content", Precedence.BULK
        if pieces is None:
            signed = await self._large_document(digest)
            pieces = [signed[first * PIECE_BYTES : (first + 1) * PIECE_BYTES] for first in wanted]
            cause, precedence = "document", Precedence.PRIORITY
        if not all(pieces):
            raise MalformedError("the object ends before that piece")
        return pieces, cause, precedence

    async def _large_document(self, digest: bytes) -> bytes:
        """Return a document's bytes; the last few are kept, since each of thousands of pieces asks for them."""
        signed = self._large.get(digest)
        if signed is None:
            record = await self._fleet.document(digest)
            if record is None:
                raise PeerError("no such object is here")
            signed = self._large[digest] = record.signed
            while len(self._large) > 1 and sum(map(len, self._large.values())) > _LARGE_BYTES_MAX:
                self._large.popitem(last=False)
        self._large.move_to_end(digest)
        return signed

    async def pack(self, request: Request) -> Answer:
        """FETCH /k: which pack leads where the truck should be."""
        truck, ask = _truck(request), PackRequest.decode(request.payload)
        offer = await self._packs.offer(ask)
        await asyncio.to_thread(self._packs.note_asked, truck.name, ask, offer)
        return Answer(offer.encode(), "content", Precedence.BULK)

    async def enrol(self, request: Request) -> Answer:
        """POST /e: redeem a one-time code; from the answer on, this context is the truck's."""
        ask = EnrolRequest.decode(request.payload)
        credential = request.peer.credential
        self._check_proof(ask, credential)
        root = self._documents.root_digest
        if root is None:
            # Before the code is used up: it is good for one enrolment.
            raise PeerError("this gateway has no root yet")
        self._documents.check_confirmed()
        if self._documents.is_revoked(ask.truck):
            raise PeerError(f"{ask.truck} is revoked by the role table: an operator undoes that before it joins again")
        if request.peer.truck is None:
            record = await self._redeem(ask, credential)
            await self._peers.enrolled(request.peer, record)
            await self._documents.refresh(record)
            log.info("truck.enrolled", truck=record.name, group=record.group)
        else:
            # The answer to the first request was lost: the same truck asks again under the context it has made its own.
            record = _truck(request)
            if record.signing_key != ask.signing_key or record.name != ask.truck:
                raise PeerError("this context belongs to another truck")
        answer = Enrolled(group=record.group, root=root, time_s=self._now_ms() // 1000)
        return Answer(answer.encode(), "enrol", Precedence.PRIORITY)

    def _check_proof(self, ask: EnrolRequest, credential: bytes) -> None:
        """Check that the truck has its signing key, bound to this session and to one of the gateway's EDHOC keys."""
        *others, last = self._gateway_keys()
        for key in others:
            with suppress(SignatureError):
                cose.verify(ask.signing_key, _proof(ask, credential, key), ask.proof)
                return
        cose.verify(ask.signing_key, _proof(ask, credential, last), ask.proof)

    async def _redeem(self, ask: EnrolRequest, credential: bytes) -> TruckRecord:
        """Use up a code; a truck that never heard the answer and begins anew with the same keys is let in again."""
        try:
            return await self._fleet.redeem_enrolment(
                hashlib.sha256(ask.secret).digest(),
                ask.truck,
                ask.signing_key,
                credential,
                edhoc.credential_kid(credential),
                self._now_ms(),
            )
        except EnrolmentError as refusal:
            record = await self._fleet.truck(ask.truck)
            is_same = (
                refusal.reason is EnrolmentReason.USED
                and record is not None
                and record.revoked_ms is None
                and (record.signing_key, record.credential) == (ask.signing_key, credential)
            )
            if not is_same or record is None:
                raise
            return record


def _proof(ask: EnrolRequest, credential: bytes, gateway_key: bytes) -> bytes:
    return enrol_proof(ask.truck, ask.secret, ask.signing_key, credential, gateway_key)


def _truck(request: Request) -> TruckRecord:
    if request.peer.record is None:
        raise PeerError("enrol first")
    return request.peer.record


def _digest(query: tuple[str, ...]) -> bytes:
    if len(query) != 1 or len(query[0]) != 43:
        raise MalformedError("a document is asked for by its base64url digest")
    try:
        return base64.b64decode(query[0] + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError("a document is asked for by its base64url digest") from error

"""Fuzz targets that parse bytes and keep no connection: CBOR, COSE, messages, documents, packs, device frames."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.collectors.vedirect_frame import FrameParser
from gateway.packing import encode
from protocol import batch, cbor, cose, edhoc
from protocol.documents import ManifestFile
from protocol.errors import DigitruckError, MalformedError, PeerError
from protocol.joincode import JoinCode, read_join_code
from protocol.messages import (
    Ack,
    Batch,
    Enrolled,
    EnrolRequest,
    Event,
    PackOffer,
    PackRequest,
    Parcel,
    PiecesRequest,
    Receipt,
    SchemaOffer,
    Tombstone,
    Upload,
    decode_payload,
    seal,
    unseal,
)
from protocol.numbers import DocumentKind, Outcome, ParcelKind, Precedence
from protocol.oscore import split_combined
from protocol.pack import decode_pack, encode_pack
from protocol.pack.decoder import decode_files
from protocol.schema import Channel, Schema, decode_schema
from protocol.summary import Summary, decode_summary, encode_summary, summarise, summary_schema
from protocol.trust import TrustedSet
from tests.attacks.rig import GROUP, NOW, ROOTS, TRUCK, Gateway, Good, root, sign
from tests.fuzz.engine import Running, Target
from tests.protocol.pack.making import make_gzip, make_png, make_zim, make_zip, text

SCHEMA = Schema((Channel("bat_v", "V", 100, 2600, 5), Channel("pv_w", "W", 1, 0, 50)), period_s=60)
ROWS = [(1_800_000_000 + 60 * n, (2600 + n % 7, None if n % 5 == 0 else 3 * n)) for n in range(40)]
DECODED_BYTES_MAX = 1 << 20
KEY = cose.SigningKey(bytes(32))


@dataclass(frozen=True)
class Parser:
    """A target that is only a function."""

    feed: Callable[[bytes], None]

    def settle(self) -> list[str]:
        """Nothing happens behind the scenes."""
        return []


def _target(name: str, seeds: Callable[[], Sequence[bytes]], feed: Callable[[bytes], None]) -> Target:
    @contextmanager
    def open_target() -> Iterator[tuple[Running, Sequence[bytes]]]:
        yield Parser(feed), seeds()

    return Target(name, open_target)


def _cbor(data: bytes) -> None:
    value = cbor.decode(data)
    if cbor.encode(value) != data:
        raise AssertionError("accepted CBOR that is not deterministic")


def _cose(data: bytes) -> None:
    cose.parse(data).verify({KEY.key_id: KEY.public}, b"")


_MESSAGES = (Ack, Batch, Enrolled, EnrolRequest, Event, PackOffer, PackRequest, Parcel, PiecesRequest, Receipt)
_MORE_MESSAGES = (SchemaOffer, Tombstone, Upload, JoinCode)


def _messages(data: bytes) -> None:
    """Every message class is tried on every input: their labels overlap, their types do not."""
    for kind in (*_MESSAGES, *_MORE_MESSAGES):
        try:
            found = kind.decode(data)
        except PeerError:
            continue
        kind.decode(found.encode())


def _parcels(data: bytes) -> None:
    for sealed in Upload.decode(data).parcels:
        decode_payload(unseal(sealed))


def _good_messages() -> Sequence[bytes]:
    digest = bytes(range(32))
    return [
        Ack(7, ((9, 12),), b"d" * 8, 1_800_000_000, schemas=(1,)).encode(),
        Batch(1, None, batch.encode(SCHEMA, ROWS)).encode(),
        Enrolled(group="kenya", root=digest, time_s=1).encode(),
        EnrolRequest(truck="ke-arrow", secret=bytes(16), signing_key=digest, proof=bytes(64)).encode(),
        Event(name="boot", time_ms=5, values={"why": "power", "count": 3, "ok": True}).encode(),
        PackOffer(digest=digest, size=12_345).encode(),
        PackRequest(digest, (digest,), b"profile").encode(),
        PiecesRequest(digest, 3, 2).encode(),
        Receipt(document=DocumentKind.CONFIG, digest=digest, outcome=Outcome.APPLIED, name="x").encode(),
        SchemaOffer(1, SCHEMA.encoded).encode(),
        Tombstone(epoch=5, ranges=((1, 3),), reason="full").encode(),
        *_good_uploads(),
    ]


def _good_uploads() -> Sequence[bytes]:
    payloads = {
        ParcelKind.BATCH: Batch(1, None, batch.encode(SCHEMA, ROWS)).encode(),
        ParcelKind.EVENT: Event(name="boot", time_ms=5).encode(),
        ParcelKind.SCHEMA: SchemaOffer(1, SCHEMA.encoded).encode(),
        ParcelKind.TOMBSTONE: Tombstone(epoch=5, ranges=((1, 3),), reason="full").encode(),
    }
    sealed = [
        seal(KEY, Parcel(77, at, Precedence.NORMAL, kind, payload), "ke-arrow")
        for at, (kind, payload) in enumerate(payloads.items(), 1)
    ]
    return [Upload(tuple(sealed), 77, True).encode(), *(Upload((each,)).encode() for each in sealed)]


def _bodies(data: bytes) -> None:
    rows = batch.decode(SCHEMA, data, rows_max=2_000)
    if len(rows) > 2_000:
        raise AssertionError("more rows than allowed")


def _summaries(data: bytes) -> None:
    for _, pieces in decode_summary(summary_schema(SCHEMA), data).batches:
        if any(not 0 <= piece.last - piece.first < 3600 for piece in pieces):
            raise AssertionError("a piece of more than an hour")


def _good_summaries() -> list[bytes]:
    pieces = summarise(SCHEMA, ROWS)
    told = (Summary(((1, pieces),)), Summary(((1, pieces), (7, pieces)), 77))
    return [encode_summary(summary_schema(SCHEMA), each) for each in told]


def _documents() -> Target:
    """A mutated document never becomes trusted: what is accepted is, byte for byte, what somebody signed."""
    good = Good.make(2)
    second_root = sign(root(2), *ROOTS[:2])
    gateway = Gateway()
    gateway.want(*good.all)
    genuine = [*good.all, second_root, gateway.desired]

    def believing() -> TrustedSet:
        trust = TrustedSet(sign(root(), *ROOTS[:2]), truck=TRUCK, group=GROUP)
        trust.accept_delegation(good.delegation, NOW)
        return trust

    held = [believing()]

    def feed(data: bytes) -> None:
        for kind in DocumentKind:
            try:
                held[0].accept(data, kind, NOW)
            except PeerError:
                continue
            if data not in genuine:
                raise AssertionError(f"a mutated {kind.name.lower()} was trusted")
            held[0] = believing()

    return _target("documents", lambda: genuine, feed)


def _join_codes(data: bytes) -> None:
    read_join_code(data.decode("utf-8", "replace"))


def _good_codes() -> Sequence[bytes]:
    code = JoinCode("ke-arrow", ("192.0.2.1:5683", "[2001:db8::1]:5683"), bytes(16), bytes(32), bytes(32)).text()
    return [code.encode(), code.lower().encode(), " ".join(code).encode()]


def _plain_packs(data: bytes) -> None:
    stream = io.BytesIO(data)
    decoded = sum(len(each) for each in decode_pack(stream.read, 30_000))
    if decoded > 30_000:
        raise AssertionError("a pack decoded to more than its manifest allows")


class _NothingHeld:
    def size(self, view: object) -> int:
        raise MalformedError("nothing is held")

    def read(self, view: object, offset: int, length: int) -> bytes:
        raise MalformedError("nothing is held")


def _packs() -> Target:
    contents = {
        "a.zip": make_zip({"x.txt": text(1), "y.txt": text(2, 900)}),
        "b.png": make_png(3),
        "c.gz": make_gzip(text(4, 2_000)),
        "d.zim": make_zim([[text(5, 700), text(6, 300)]]),
        "e.txt": text(7, 3_000),
    }
    wanted = [ManifestFile(path, len(data), cose.digest(data)) for path, data in contents.items()]

    def seeds() -> Sequence[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            for path, data in contents.items():
                (Path(folder) / path).write_bytes(data)
            alone = [b"".join(encode([(each, Path(folder) / each.path)], [])) for each in wanted]
            return [b"".join(encode([(each, Path(folder) / each.path) for each in wanted], [])), *alone]

    def feed(data: bytes) -> None:
        for files in (wanted, [wanted[data[0] % len(wanted)]] if data else wanted):
            stream, total = io.BytesIO(data), 0
            try:
                for _, pieces in decode_files(stream.read, files, _NothingHeld()):
                    total += sum(len(piece) for piece in pieces)
            except PeerError:
                continue
            if total != sum(each.size for each in files):
                raise AssertionError("a pack decoded to another size than was signed")

    return _target("packs", seeds, feed)


def _vedirect(data: bytes) -> None:
    parser = FrameParser(at_start=bool(data and data[0] & 1))
    for at in range(0, len(data), 7):
        parser.feed(data[at : at + 7])


def _good_frames() -> Sequence[bytes]:
    fields = b"".join(b"\r\n%s\t%s" % pair for pair in ((b"PID", b"0xA053"), (b"V", b"12800"), (b"I", b"-15000")))
    frame = fields + b"\r\nChecksum\t"
    frame += bytes([-sum(frame) & 0xFF])
    return [frame, frame * 3, b":A0002000148\n" + frame]


def _schemas(data: bytes) -> None:
    decode_schema(data)


def _edhoc() -> Target:
    """Both sides of a handshake, and the combined request's payload, with real messages of each step as seeds."""
    gateway, truck = edhoc.generate_key(), edhoc.generate_key()

    def seeds() -> Sequence[bytes]:
        initiator, responder = (
            edhoc.Initiator(truck, gateway.public, link="sat", joining=True),
            edhoc.Responder(gateway),
        )
        first = initiator.message_1()
        second = responder.answer(first, b"\x01\x02\x03")
        third, _ = initiator.finish(second)
        return [first, second, third, third + bytes(40)]

    def feed(data: bytes) -> None:
        for step in (_as_first, _as_second, _as_third, _as_combined):
            try:
                step(data)
            except PeerError:
                continue

    def _as_first(data: bytes) -> None:
        edhoc.Responder(gateway).answer(data, b"\x01\x02\x03")

    def _as_second(data: bytes) -> None:
        initiator = edhoc.Initiator(truck, gateway.public, link="sat", joining=False)
        initiator.message_1()
        initiator.finish(data)
        raise AssertionError("a message_2 for another handshake was believed")

    def _as_third(data: bytes) -> None:
        initiator, responder = (
            edhoc.Initiator(truck, gateway.public, link="sat", joining=True),
            edhoc.Responder(gateway),
        )
        responder.answer(initiator.message_1(), b"\x01\x02\x03")
        identity = responder.read_message_3(data)
        responder.finish(identity.credential or truck.credential)
        raise AssertionError("a message_3 for another handshake was believed")

    def _as_combined(data: bytes) -> None:
        try:
            split_combined(data)
        except ValueError as error:
            raise MalformedError("not a combined payload") from error

    return _target("edhoc", seeds, feed)


def _as_peer_errors(feed: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """An error of the software's own family is a refusal as well."""

    def wrapped(data: bytes) -> None:
        try:
            feed(data)
        except PeerError:
            raise
        except DigitruckError as error:
            raise MalformedError(str(error)) from error

    return wrapped


def parser_targets() -> list[Target]:
    """Return every target of this module."""
    return [
        _target("cbor", _good_messages, _cbor),
        _target("cose", lambda: [cose.sign1(KEY, b"x" * 40, b""), cose.sign([KEY, KEY], b"y" * 40, b"")], _cose),
        _target("messages", _good_messages, _messages),
        _target("uploads", _good_uploads, _parcels),
        _target("schemas", lambda: [SCHEMA.encoded], _schemas),
        _target(
            "bodies", lambda: [batch.encode(SCHEMA, ROWS), batch.encode(SCHEMA, ROWS[:3])], _as_peer_errors(_bodies)
        ),
        _target("summaries", _good_summaries, _as_peer_errors(_summaries)),
        _documents(),
        _target("join-codes", _good_codes, _join_codes),
        _target("plain-packs", lambda: [b"".join(encode_pack([b"ab" * 15_000]))], _plain_packs),
        _packs(),
        _target("vedirect", _good_frames, _vedirect),
        _edhoc(),
    ]

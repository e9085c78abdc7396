"""What an authenticated truck is answered, resource by resource, over real exchanges on loopback."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from aiocoap.numbers import codes

from gateway.budgets import month_of
from protocol import cbor, cose
from protocol.documents import Delegation, Desired, parse_document
from protocol.messages import Ack, PackOffer, PackRequest, PiecesRequest, Receipt, Upload
from protocol.numbers import PIECE_BYTES, DocumentKind, Outcome, ParcelKind, Precedence
from store.fleet.errors import EnrolmentReason
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.coapside import (
    ScriptedTruck,
    Side,
    make_code,
    open_truck,
    rows_from,
    unprotected,
)
from tests.gateway.fleets import NOW_MS, NOW_S, Signers


@pytest.fixture
async def session(side: Side, truck: ScriptedTruck) -> ScriptedTruck:
    """A truck with a session and a desired state."""
    record = await side.fleet.truck(truck.name)
    assert record is not None
    await side.documents.refresh(record)
    await truck.handshake("sat")
    return truck


@pytest.fixture
async def joiner(side: Side) -> AsyncIterator[ScriptedTruck]:
    """A truck that nobody knows yet."""
    async with open_truck(side.address) as opened:
        yield opened


def query(digest: bytes) -> tuple[str, ...]:
    return (base64.urlsafe_b64encode(digest).decode().rstrip("="),)


def receipt(truck: ScriptedTruck, digest: bytes) -> bytes:
    said = Receipt(DocumentKind.DESIRED, digest, Outcome.APPLIED, version=1, time_ms=NOW_MS)
    return truck.seal(ParcelKind.RECEIPT, said.encode())


async def test_an_upload_is_stored_and_acknowledged(session: ScriptedTruck) -> None:
    ack = await session.upload(session.offer(), session.batch(rows_from(NOW_S)))
    assert (ack.cumulative, ack.ranges, ack.refused, ack.time_s) == (2, (), (), None)


async def test_time_is_told_when_it_is_asked_for(side: Side, session: ScriptedTruck) -> None:
    assert (await session.upload(ask_time=True)).time_s == NOW_S


async def test_what_was_spent_is_told_of_this_month_or_since_an_earlier_beginning(
    side: Side, session: ScriptedTruck
) -> None:
    day_ms = 86_400_000
    for days_ago, size in ((1, 100), (40, 3_000), (90, 50_000)):
        at_ms = NOW_MS - days_ago * day_ms
        await side.fleet.ledger_add(
            [LedgerEntry(session.name, "lte", Precedence.NORMAL, "batch", Direction.UP, at_ms, size, 1)]
        )
    month_s = month_of(NOW_MS)[0] // 1000

    async def told(since_s: int | None) -> tuple[int, int | None]:
        asked = Upload(ask_spent=True, spent_since_s=since_s).encode()
        ack = Ack.decode((await session.ask("u", asked)).payload)
        assert ack.spent is not None
        return sum(flash + other for link, flash, other in ack.spent if link == "lte"), ack.spent_since_s

    this_month = 100 if NOW_MS - day_ms >= month_s * 1000 else 0
    assert await told(None) == (this_month, None)
    assert await told(NOW_S) == (this_month, month_s)  # never less than was asked for before
    earlier_s = NOW_S - 41 * 86_400
    assert await told(earlier_s) == (3_100, earlier_s)
    assert await told(0) == (3_100, NOW_S - 62 * 86_400)
    assert (await session.upload()).spent is None


async def test_a_hello_notes_where_the_truck_was_heard(side: Side, session: ScriptedTruck) -> None:
    side.clock.pass_s(60.0)
    await session.upload()
    record = await side.fleet.truck(session.name)
    assert record is not None
    assert (record.last_heard_ms, record.last_link) == (side.clock.ms, "sat")
    assert record.last_address is not None
    assert record.last_address.startswith("127.0.0.1")


async def test_the_desired_digest_is_named_until_a_receipt_reports_it(side: Side, session: ScriptedTruck) -> None:
    desired = await side.fleet.desired(session.name)
    assert desired is not None
    assert (await session.upload()).desired == desired.digest[:8]
    assert (await session.upload(receipt(session, desired.digest))).desired is None
    assert (await session.upload()).desired is None


async def test_a_new_desired_state_is_named_in_the_next_acknowledgement(side: Side, session: ScriptedTruck) -> None:
    before = (await session.upload()).desired
    await side.documents.accept(Signers().delegation(), "a test")
    await asyncio.sleep(0.2)
    after = (await session.upload()).desired
    assert None is not after != before


async def test_uploads_read_no_truck_record_while_nothing_changes(
    side: Side, session: ScriptedTruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.upload(session.offer())
    read = []
    truck = side.fleet.truck

    async def counted(name: str) -> object:
        read.append(name)
        return await truck(name)

    monkeypatch.setattr(side.fleet, "truck", counted)
    for n in range(10):
        await session.upload(session.batch(rows_from(NOW_S + 600 * n)))
    # The session's own change may be heard after the first of them.
    assert len(read) <= 1


async def test_a_document_is_given_by_its_digest(side: Side, session: ScriptedTruck) -> None:
    root = side.documents.root_digest
    assert root is not None
    answer = await session.ask("d", code=codes.GET, query=query(root))
    assert (answer.code, cose.digest(answer.payload)) == (codes.CONTENT, root)


async def test_the_desired_state_is_given_by_its_name(session: ScriptedTruck) -> None:
    answer = await session.ask("d", code=codes.GET, query=("desired",))
    desired, _ = parse_document(answer.payload, Desired)
    assert desired.truck == session.name


@pytest.mark.parametrize("asked", [(), ("a", "b"), ("x" * 43,), ("ä" * 43,), ("!" * 43,), ("A" * 42,), ("A" * 43,)])
async def test_a_document_that_is_not_here_or_no_digest_is_refused(
    session: ScriptedTruck, asked: tuple[str, ...]
) -> None:
    assert (await session.ask("d", code=codes.GET, query=asked)).code == codes.BAD_REQUEST


async def test_a_large_document_comes_in_pieces_and_is_read_once(
    side: Side, session: ScriptedTruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    await side.documents.accept(Signers().delegation(), "a test")
    record = await side.documents.accept(Signers().manifest({f"{n}.html": b"%d" % n for n in range(1_500)}), "a test")
    too_large = await session.ask("d", code=codes.GET, query=query(record.digest))
    assert b"pieces" in too_large.payload
    read = []
    document = side.fleet.document

    async def counted(digest: bytes) -> object:
        read.append(digest)
        return await document(digest)

    monkeypatch.setattr(side.fleet, "document", counted)
    pieces = [
        (await session.ask("p", PiecesRequest(record.digest, n).encode(), code=codes.FETCH)).payload
        for n in range(-(-len(record.signed) // PIECE_BYTES))
    ]
    assert b"".join(pieces) == record.signed
    assert len(read) == 1
    beyond = PiecesRequest(record.digest, len(pieces)).encode()
    assert (await session.ask("p", beyond, code=codes.FETCH)).code == codes.BAD_REQUEST


async def test_a_piece_or_pack_of_nothing_is_refused(session: ScriptedTruck) -> None:
    for path, payload in (
        ("p", PiecesRequest(bytes(32), 0).encode()),
        ("p", PiecesRequest(bytes(32), 1 << 40).encode()),
        ("p", b"\x80"),
        ("k", PackRequest(bytes(32)).encode()),
        ("k", b"\xff"),
    ):
        assert (await session.ask(path, payload, code=codes.FETCH)).code == codes.BAD_REQUEST


async def test_a_pack_whose_files_are_not_here_says_so(side: Side, session: ScriptedTruck) -> None:
    await side.documents.accept(Signers().delegation(), "a test")
    manifest = await side.documents.accept(Signers().manifest({"a.html": b"a"}), "a test")
    answer = await session.ask("k", PackRequest(manifest.digest).encode(), code=codes.FETCH)
    assert (answer.code, answer.payload[:7]) == (codes.BAD_REQUEST, b"1 files")


async def test_an_empty_pack_is_offered_for_what_is_held(side: Side, session: ScriptedTruck) -> None:
    await side.documents.accept(Signers().delegation(), "a test")
    manifest = await side.documents.accept(Signers().manifest({"a.html": b""}), "a test")
    side.packs._workers = ThreadPoolExecutor(1)  # type: ignore[assignment]  # a process takes seconds to start
    answer = await session.ask("k", PackRequest(manifest.digest).encode(), code=codes.FETCH)
    offer = PackOffer.decode(answer.payload)
    assert offer.digest is not None
    piece = await session.ask("p", PiecesRequest(offer.digest, 0).encode(), code=codes.FETCH)
    assert cose.digest(piece.payload) == offer.digest


async def test_a_code_enrols_a_truck_and_its_session_lives_on(side: Side, joiner: ScriptedTruck) -> None:
    enrolled = await joiner.enrol(await make_code(side.fleet))
    assert (enrolled.group, enrolled.root, enrolled.time_s) == ("kenya", side.documents.root_digest, NOW_S)
    assert (await joiner.upload(joiner.offer())).cumulative == 1
    assert len(await side.fleet.contexts_of("ke-arrow")) == 1
    assert await side.fleet.desired("ke-arrow") is not None


async def test_a_lost_answer_is_repeated_in_the_same_session(side: Side, joiner: ScriptedTruck) -> None:
    secret = await make_code(side.fleet)
    first = await joiner.enrol(secret)
    again = await joiner.ask("e", joiner.enrol_request(secret).encode())
    assert again.payload == first.encode()


async def test_a_lost_answer_is_repeated_to_the_same_keys_in_a_new_session(side: Side, joiner: ScriptedTruck) -> None:
    """The truck's power went before it heard: `digitruck-edge join` is run again with the same code."""
    secret = await make_code(side.fleet)
    assert await joiner.enrol(secret) == await joiner.enrol(secret)
    assert (await joiner.upload(joiner.offer())).cumulative == 1


async def refused(truck: ScriptedTruck, secret: bytes, **changes: object) -> str:
    await truck.handshake(joining=True)
    answer = await truck.ask("e", truck.enrol_request(secret, **changes).encode())
    assert answer.code == codes.BAD_REQUEST
    return answer.payload.decode()


async def test_a_code_is_good_for_one_truck_only(side: Side, joiner: ScriptedTruck) -> None:
    secret = await make_code(side.fleet)
    await joiner.enrol(secret)
    async with open_truck(side.address) as thief:
        thief.signing = cose.SigningKey(b"t" * 32)
        assert EnrolmentReason.USED in await refused(thief, secret)
    assert (await joiner.upload()).cumulative == 0


async def test_a_code_that_expired_or_never_was_or_is_anothers_is_refused(side: Side, joiner: ScriptedTruck) -> None:
    expired = await make_code(side.fleet, expires_ms=NOW_MS + 1_000)
    side.clock.pass_s(1.0)
    assert EnrolmentReason.EXPIRED in await refused(joiner, expired)
    assert EnrolmentReason.UNKNOWN in await refused(joiner, bytes(16))
    foreign = await make_code(side.fleet, "tz-arrow")
    assert EnrolmentReason.OTHER_TRUCK in await refused(joiner, foreign)
    assert await side.fleet.truck("ke-arrow") is None


async def test_a_wrong_proof_uses_up_no_code(side: Side, joiner: ScriptedTruck) -> None:
    secret = await make_code(side.fleet)
    await refused(joiner, secret, key=cose.SigningKey(b"w" * 32))
    assert (await joiner.enrol(secret)).group == "kenya"


async def test_a_proof_made_for_another_exchange_key_is_refused(side: Side, joiner: ScriptedTruck) -> None:
    """Whoever reads a code's secret off the wire of another truck cannot put its signing key under his session."""
    secret = await make_code(side.fleet)
    async with open_truck(side.address) as thief:
        await thief.handshake(joining=True)
        answer = await thief.ask("e", joiner.enrol_request(secret).encode())
        assert answer.code == codes.BAD_REQUEST


async def test_without_a_root_no_code_is_used_up(
    side: Side, joiner: ScriptedTruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await make_code(side.fleet)
    with monkeypatch.context() as patched:
        patched.setattr(side.documents, "_root_digest", None)
        assert "no root" in await refused(joiner, secret)
    assert (await joiner.enrol(secret)).group == "kenya"


async def test_a_truck_that_enrols_anew_ends_its_old_sessions_and_keeps_its_history(
    side: Side, joiner: ScriptedTruck
) -> None:
    await joiner.enrol(await make_code(side.fleet))
    await joiner.upload(joiner.offer(), joiner.batch(rows_from(NOW_S)))
    async with open_truck(side.address) as renewed:
        renewed.signing = cose.SigningKey(b"n" * 32)
        await renewed.enrol(await make_code(side.fleet))
        assert await unprotected(joiner.upload())
        assert (await renewed.upload(renewed.offer(epoch=9), epoch=9)).cumulative == 1
    assert len(await side.fleet.batches("ke-arrow", 0, NOW_MS * 2)) == 1
    assert len(await side.fleet.keys_of("ke-arrow")) == 2


async def test_a_truck_that_the_role_table_revokes_cannot_enrol_with_any_code(
    side: Side, joiner: ScriptedTruck
) -> None:
    signers = Signers()
    table = parse_document(signers.delegation(2), Delegation)[0]
    await side.documents.accept(
        signers.sign(msgspec.structs.replace(table, revoked=("ke-arrow",)), signers.root), "a test"
    )
    secret = await make_code(side.fleet)
    await joiner.handshake(joining=True)
    answer = await joiner.ask("e", joiner.enrol_request(secret).encode())
    assert answer.code == codes.BAD_REQUEST
    assert b"revoked" in answer.payload
    assert (await side.fleet.enrolments())[0].redeemed_ms is None


async def test_a_truck_tells_a_role_table_that_is_not_here(side: Side, session: ScriptedTruck) -> None:
    answer = await session.ask("d", Signers().delegation(2))
    assert (answer.code, answer.payload) == (codes.CHANGED, b"")
    newest = await side.fleet.newest_document(DocumentKind.DELEGATION)
    assert newest is not None
    assert (newest.version, newest.put_by) == (2, "truck/ke-arrow")
    assert (await session.ask("d", Signers().config(9))).code == codes.BAD_REQUEST


async def test_an_enrolled_truck_cannot_enrol_as_another(side: Side, joiner: ScriptedTruck) -> None:
    await joiner.enrol(await make_code(side.fleet))
    secret = await make_code(side.fleet, "tz-arrow")
    answer = await joiner.ask("e", joiner.enrol_request(secret, truck="tz-arrow").encode())
    assert answer.code == codes.BAD_REQUEST
    assert await side.fleet.truck("tz-arrow") is None


async def test_an_upload_beyond_the_limits_is_refused(session: ScriptedTruck) -> None:
    for payload in (Upload(tuple(bytes(80) for _ in range(65))).fields(), {1: [bytes(20_000)]}, {1: [bytes(3)]}):
        assert (await session.ask("u", cbor.encode(payload))).code == codes.BAD_REQUEST

"""Joining a fleet: once it is done it is whole, and it may be repeated at any point."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from edge import joining
from edge.config import LinkSettings
from edge.identity import NotEnrolledError, load_identity
from edge.joining import join
from edge.link_errors import LinkDownError
from protocol import cose
from protocol.errors import DigitruckError, UntrustedError
from protocol.joincode import JoinCode, read_join_code
from protocol.numbers import DocumentKind
from store.database import open_database
from store.documents import Documents
from store.errors import StoreInUseError
from store.schema import STATE
from tests.edge.rig import Rig


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "truck"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_ANSWER_S", 0.3)


async def code(rig: Rig, **changed: Any) -> JoinCode:
    parsed = read_join_code(await rig.hub.code())
    fields = {name: getattr(parsed, name) for name in ("truck", "addresses", "secret", "gateway_key", "root")}
    return JoinCode(**{**fields, **changed})


def root_of(data: Path) -> bytes:
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    try:
        held = Documents(state).current(DocumentKind.ROOT)
    finally:
        state.close()
    assert held is not None
    return held.digest


async def test_a_truck_that_joined_has_its_name_its_group_and_the_pinned_root(rig: Rig, data: Path) -> None:
    parsed = await code(rig)
    enrolment = await join(parsed, rig.config(), data)
    keys, saved = load_identity(data / "identity")
    assert saved == enrolment
    assert (saved.truck, saved.group, saved.root) == ("ke-arrow", "kenya", parsed.root)
    assert root_of(data) == parsed.root
    record = await rig.hub.gateway.fleet.truck("ke-arrow")  # type: ignore[union-attr]
    assert record is not None
    assert record.signing_key == keys.signing.public


async def test_an_enrolment_whose_answer_was_lost_may_be_repeated(rig: Rig, data: Path) -> None:
    wire = await rig.wire()
    parsed = await code(rig, addresses=(wire.address,))
    config = rig.config(LinkSettings(name="lte"))
    seen = 0

    def lose_answers(sent: bytes, is_up: bool) -> bool:
        nonlocal seen
        seen += not is_up
        return not is_up and seen > 1  # the handshake passes, what the enrolment is answered with does not

    wire.drop = lose_answers
    with pytest.raises(LinkDownError, match="run the same command again"):
        await join(parsed, config, data)
    assert await rig.hub.gateway.fleet.truck("ke-arrow") is not None  # type: ignore[union-attr]
    with pytest.raises(NotEnrolledError):
        load_identity(data / "identity")
    wire.drop = lambda sent, is_up: False
    assert (await join(parsed, config, data)).truck == "ke-arrow"


async def test_a_code_serves_one_truck_only(rig: Rig, data: Path, tmp_path: Path) -> None:
    parsed = await code(rig)
    await join(parsed, rig.config(), data)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UntrustedError, match="ask the operator for a new code"):
        await join(parsed, rig.config(), other)
    with pytest.raises(NotEnrolledError):
        load_identity(other / "identity")


async def test_a_code_that_was_never_made_is_refused_with_the_gateways_words(rig: Rig, data: Path) -> None:
    with pytest.raises(UntrustedError, match=r"unknown; ask the operator .*`digitruck enrol ke-arrow`"):
        await join(await code(rig, secret=b"x" * 16), rig.config(), data)


async def test_another_gateway_cannot_take_the_place_of_the_one_in_the_code(rig: Rig, data: Path) -> None:
    with pytest.raises(DigitruckError):
        await join(await code(rig, gateway_key=b"\x01" * 32), rig.config(), data)
    with pytest.raises(NotEnrolledError):
        load_identity(data / "identity")


async def test_a_root_that_is_not_the_pinned_one_is_refused(rig: Rig, data: Path) -> None:
    handlers = rig.hub.gateway.context.serversite._handlers  # type: ignore[union-attr]
    key = next(key for key in handlers if key[1] == "d")
    real = handlers[key]

    async def lie(request: Any) -> Any:
        digest = rig.hub.gateway.documents.root_digest  # type: ignore[union-attr]
        return await real(request.__class__(request.peer, request.address, b"", (_query(digest),)))

    handlers[key] = lie
    with pytest.raises(DigitruckError) as caught:
        await join(await code(rig, root=cose.digest(b"another root")), rig.config(), data)
    assert isinstance(caught.value, UntrustedError)
    with pytest.raises(NotEnrolledError):
        load_identity(data / "identity")


def _query(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


async def test_the_second_gateway_of_the_code_is_tried_and_then_the_next_link(rig: Rig, data: Path) -> None:
    dead = await rig.wire()
    dead.cut = True
    parsed = await code(rig, addresses=(dead.address, f"127.0.0.1:{rig.hub.port}"))
    links = (
        LinkSettings(name="lte", gateways=(dead.address,)),
        LinkSettings(name="sat", price_per_mb=5.0),
    )
    assert (await join(parsed, rig.config(*links), data)).truck == "ke-arrow"
    assert dead.up_datagrams >= 2


async def test_a_running_daemon_uses_up_no_code(rig: Rig) -> None:
    data = await rig.join()
    edge = await rig.start(data)
    parsed = read_join_code(await rig.hub.code(secret=b"n" * 16))
    with pytest.raises(StoreInUseError):
        await join(parsed, rig.config(), data)
    await rig.stop(edge)
    assert (await join(parsed, rig.config(), data)).truck == "ke-arrow"


async def test_joining_again_forgets_what_the_fleet_before_had_trusted(rig: Rig) -> None:
    data = await rig.join()
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    Documents(state).put_trusted(DocumentKind.CONFIG, "ke-arrow", 99, cose.digest(b"old"), b"old")
    state.close()
    await join(read_join_code(await rig.hub.code(secret=b"n" * 16)), rig.config(), data)
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    assert Documents(state).highest(DocumentKind.CONFIG, "ke-arrow") is None
    state.close()

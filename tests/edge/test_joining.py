"""Joining a fleet: once it is done it is whole, and it may be repeated at any point."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from edge import joining
from edge.clock import load_clock
from edge.config import LinkSettings
from edge.identity import NotEnrolledError, load_identity
from edge.joining import join
from edge.link_errors import LinkDownError
from protocol import cose
from protocol.errors import DigitruckError, LocalError, UntrustedError
from protocol.joincode import JoinCode, read_join_code
from protocol.numbers import DocumentKind
from store.database import open_database
from store.documents import Documents
from store.errors import StoreInUseError
from store.schema import STATE
from store.settings import Settings
from tests.edge.rig import Rig, arrived, send, settled


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
    return structs.replace(parsed, **changed)


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
    with pytest.raises(UntrustedError, match=r"unknown here.*; ask the operator .*`digitruck enrol ke-arrow`"):
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


async def test_joining_another_fleet_forgets_what_the_one_before_had_trusted(rig: Rig) -> None:
    data = await rig.join()
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    documents = Documents(state)
    documents.put_trusted(DocumentKind.CONFIG, "ke-arrow", 99, cose.digest(b"old"), b"old")
    state.close()
    await join(read_join_code(await rig.hub.code(secret=b"n" * 16)), rig.config(), data)
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    assert Documents(state).highest(DocumentKind.CONFIG, "ke-arrow") == 99  # the same root: no version falls
    Documents(state).forget_versions([DocumentKind.ROOT])
    Documents(state).put_trusted(DocumentKind.ROOT, "", 1, cose.digest(b"another"), b"another")
    state.close()
    await join(read_join_code(await rig.hub.code(secret=b"m" * 16)), rig.config(), data)
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    assert Documents(state).highest(DocumentKind.CONFIG, "ke-arrow") is None
    state.close()


async def test_joining_begins_with_the_gateways_time_whatever_was_told_before(rig: Rig) -> None:
    data = await rig.join()
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    now_s = rig.hub.now_ms // 1000
    assert load_clock(Settings(state)).floor_s == now_s
    Settings(state).put_int("clock.floor_s", now_s + 10**9)
    state.close()
    await join(read_join_code(await rig.hub.code(secret=b"n" * 16)), rig.config(), data)
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    assert load_clock(Settings(state)).floor_s == now_s
    state.close()


async def test_new_keys_lose_nothing_that_was_on_its_way(rig: Rig) -> None:
    data = await rig.join()
    old, _ = load_identity(data / "identity")
    wire = await rig.wire()
    link = LinkSettings(name="lte", gateways=(wire.address,))
    edge = await rig.start(data, link)
    await send(edge, "before")
    await arrived(rig, "before")
    await settled(edge)
    # One parcel arrives and its acknowledgement does not, one waits.
    wire.drop = lambda sent, is_up: not is_up
    await send(edge, "unacknowledged")
    await arrived(rig, "unacknowledged")
    wire.cut = True
    await send(edge, "waiting")
    await rig.stop(edge)
    await join(read_join_code(await rig.hub.code(secret=b"n" * 16)), rig.config(), data, new_keys=True)
    new, enrolment = load_identity(data / "identity")
    assert enrolment.truck == "ke-arrow"
    assert {new.signing.public, new.edhoc.public}.isdisjoint({old.signing.public, old.edhoc.public})
    assert not (data / "identity" / "next").exists()
    edge = await rig.start(data)
    await send(edge, "after")
    await arrived(rig, "waiting", "after")
    await settled(edge)
    names = await rig.hub.names()
    assert {name: names.count(name) for name in ("before", "unacknowledged", "waiting", "after")} == {
        "before": 1,
        "unacknowledged": 1,
        "waiting": 1,
        "after": 1,
    }
    fleet = rig.hub.gateway.fleet  # type: ignore[union-attr]
    keys = [each.signing_key for each in await fleet.keys_of("ke-arrow")]
    assert keys == [old.signing.public, new.signing.public]
    assert (await fleet.summary()).quarantined == 0


async def test_new_keys_that_a_power_cut_interrupts_are_taken_by_the_next_try(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = await rig.join()
    old, _ = load_identity(data / "identity")
    parsed = read_join_code(await rig.hub.code(secret=b"n" * 16))
    with monkeypatch.context() as cut:
        cut.setattr(joining, "save_next", _power_cut)
        with pytest.raises(OSError, match="power cut"):
            await join(parsed, rig.config(), data, new_keys=True)
    assert load_identity(data / "identity")[0].signing.public == old.signing.public
    await join(parsed, rig.config(), data, new_keys=True)
    record = await rig.hub.gateway.fleet.truck("ke-arrow")  # type: ignore[union-attr]
    assert record is not None
    assert load_identity(data / "identity")[0].signing.public == record.signing_key != old.signing.public


@pytest.mark.parametrize("moved", [0, 1, 2])
async def test_new_keys_half_moved_are_moved_on_at_the_next_start(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    data = await rig.join()
    parsed = read_join_code(await rig.hub.code(secret=b"n" * 16))
    real, done = Path.replace, []

    def replace(self: Path, target: Any) -> Any:
        if self.parent.name == "next" and Path(target).parent.name == "identity":
            if len(done) >= moved:
                _power_cut()
            done.append(self)
        return real(self, target)

    with monkeypatch.context() as cut:
        cut.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="power cut"):
            await join(parsed, rig.config(), data, new_keys=True)
    keys, _ = load_identity(data / "identity")
    record = await rig.hub.gateway.fleet.truck("ke-arrow")  # type: ignore[union-attr]
    assert record is not None
    assert (keys.signing.public, keys.edhoc.credential) == (record.signing_key, record.credential)


def _power_cut(*_: object) -> None:
    raise OSError("power cut")


async def test_new_keys_need_a_code_for_this_very_truck(rig: Rig) -> None:
    data = await rig.join()
    parsed = read_join_code(await rig.hub.code(secret=b"n" * 16))
    with pytest.raises(LocalError, match="this truck is ke-arrow and the code is for tz-arrow"):
        await join(structs.replace(parsed, truck="tz-arrow"), rig.config(), data, new_keys=True)

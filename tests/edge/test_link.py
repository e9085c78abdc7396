"""One link: sessions, several gateways, names, errors that say whose fault it is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiocoap.numbers import codes

from edge.config import LinkSettings
from edge.daemon import Edge
from edge.link import Answered, Link
from edge.link_errors import LinkDownError, RefusedError, SessionLostError
from protocol.errors import BudgetExceededError
from protocol.messages import Ack, Upload
from protocol.numbers import OSCORE_REKEY_AFTER, PATH_DOCUMENT, PATH_UPLOAD, Precedence
from tests.edge.rig import Rig, Wire


async def hello(link: Link, *, timeout_s: float = 5.0) -> Answered:
    return await link.request(
        codes.POST,
        PATH_UPLOAD,
        Upload(ask_time=True).encode(),
        precedence=Precedence.PRIORITY,
        cause="hello",
        timeout_s=timeout_s,
    )


async def opened(rig: Rig, *wires: Wire, **settings: Any) -> tuple[Edge, Link]:
    """Return a truck whose daemon is open and does nothing by itself, and its link."""
    gateways = tuple(wire.address for wire in wires) or (f"127.0.0.1:{rig.hub.port}",)
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=gateways, **settings), run=False)
    return edge, edge.links[0]


async def test_an_answer_has_its_round_trip(rig: Rig) -> None:
    _, link = await opened(rig)
    answered = await hello(link)
    assert Ack.decode(answered.payload).time_s == rig.hub.now_ms // 1000
    assert link.rtt_s is not None
    assert 0 < answered.rtt_s < 2
    assert (link.usable, link.loss) == (True, 0.0)


async def test_the_handshake_and_the_first_request_share_a_datagram(rig: Rig) -> None:
    wire = await rig.wire()
    _, link = await opened(rig, wire)
    await hello(link)
    assert wire.up_datagrams == 2
    assert wire.total_bytes < 400


async def test_a_session_outlives_the_daemon(rig: Rig) -> None:
    wire = await rig.wire()
    edge, link = await opened(rig, wire)
    await hello(link)
    await rig.stop(edge)
    edge = await rig.start(rig.tmp_path / "ke-arrow", LinkSettings(name="lte", gateways=(wire.address,)), run=False)
    before = wire.up_datagrams
    await hello(edge.links[0])
    assert wire.up_datagrams == before + 1


async def test_no_sequence_number_is_used_twice_over_crashes(rig: Rig) -> None:
    wire = await rig.wire()
    seen: list[bytes] = []

    def note(data: bytes, is_up: bool) -> bool:
        if is_up:
            seen.append(data[4 + (data[0] & 15) :])
        return False

    edge, link = await opened(rig, wire)
    wire.drop = note
    for _ in range(3):
        await hello(link)
        await rig.crash(edge)
        edge = await rig.start(rig.tmp_path / "ke-arrow", LinkSettings(name="lte", gateways=(wire.address,)), run=False)
        link = edge.links[0]
    assert len(seen) == len(set(seen)) >= 4


async def test_no_answer_is_the_links_fault(rig: Rig) -> None:
    wire = await rig.wire()
    _, link = await opened(rig, wire)
    await hello(link)
    wire.cut = True
    with pytest.raises(LinkDownError, match="no answer over lte"):
        await hello(link, timeout_s=0.1)
    assert link.loss == 1 / 3  # the handshake and one hello were answered


async def test_a_refusal_is_told_with_the_gateways_words(rig: Rig) -> None:
    _, link = await opened(rig)
    with pytest.raises(RefusedError) as caught:
        await link.request(
            codes.GET, PATH_DOCUMENT, b"", precedence=Precedence.PRIORITY, cause="document", timeout_s=5, query=("x",)
        )
    assert "digest" in str(caught.value)
    assert not caught.value.is_passing
    assert link.usable


async def test_a_lost_session_is_renewed_at_once_but_not_over_and_over(rig: Rig) -> None:
    _, link = await opened(rig)
    await hello(link)
    fleet, peers = rig.hub.gateway.fleet, rig.hub.gateway.context.serversite._peers  # type: ignore[union-attr]

    async def forget() -> None:
        peers.forget_truck("ke-arrow")
        await fleet.delete_contexts("ke-arrow", keep_kids=(), link="lte")

    await forget()
    with pytest.raises(SessionLostError) as caught:
        await hello(link)
    assert caught.value.renewable
    await hello(link)
    await forget()
    with pytest.raises(SessionLostError) as caught:
        await hello(link)
    assert not caught.value.renewable


async def test_requests_that_fail_together_give_up_one_session(rig: Rig) -> None:
    _, link = await opened(rig)
    await hello(link)
    rig.hub.gateway.context.serversite._peers.forget_truck("ke-arrow")  # type: ignore[union-attr]
    await rig.hub.gateway.fleet.delete_contexts("ke-arrow", keep_kids=(), link="lte")  # type: ignore[union-attr]
    failures = await asyncio.gather(*(hello(link) for _ in range(5)), return_exceptions=True)
    lost = [each for each in failures if isinstance(each, SessionLostError)]
    assert lost
    assert all(each.renewable for each in lost)
    await hello(link)


async def test_the_next_gateway_is_tried_when_one_does_not_answer_the_handshake(rig: Rig) -> None:
    dead, alive = await rig.wire(), await rig.wire()
    dead.cut = True
    _, link = await opened(rig, dead, alive)
    with pytest.raises(LinkDownError, match="no gateway answers"):
        await hello(link)
    assert link.gateway == alive.address
    await hello(link)


async def test_silent_contacts_turn_to_the_next_gateway_and_its_own_session(rig: Rig) -> None:
    one, two = await rig.wire(), await rig.wire()
    _, link = await opened(rig, one, two)
    await hello(link)
    for _ in range(3):
        link.mark_down()
    assert link.gateway == two.address
    await hello(link)
    assert two.up_datagrams == 2
    assert link.usable


async def test_one_failed_handshake_is_enough_for_all_that_wait_for_it(rig: Rig) -> None:
    wire = await rig.wire()
    wire.cut = True
    _, link = await opened(rig, wire)
    failures = await asyncio.gather(*(hello(link) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(each, LinkDownError) for each in failures)
    assert wire.up_datagrams == 4  # the tries of one handshake


async def test_a_network_that_is_not_there_is_the_links_fault(rig: Rig) -> None:
    edge, _ = await opened(rig)
    link = edge._link(LinkSettings(name="lte", gateways=("[2001:db8::1]:5683",)))
    with pytest.raises(LinkDownError):
        await hello(link, timeout_s=0.2)
    await link.close()


async def test_a_name_that_does_not_resolve_is_the_links_fault_and_one_that_does_is_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge, _ = await opened(rig)
    link = edge._link(LinkSettings(name="lte", gateways=(f"gateway.example:{rig.hub.port}",)))
    asked, loop = [], asyncio.get_running_loop()

    async def fail(host: str, port: object) -> Any:
        raise OSError("no name server")

    async def answer(host: str, port: object) -> Any:
        asked.append(host)
        return [(None, None, None, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(loop, "getaddrinfo", fail)
    with pytest.raises(LinkDownError, match=r"gateway\.example does not resolve"):
        await hello(link)
    monkeypatch.setattr(loop, "getaddrinfo", answer)
    await hello(link)
    await hello(link)
    assert asked == ["gateway.example"]
    await link.close()


async def test_an_interface_that_is_not_there_is_an_error_and_no_crash(rig: Rig) -> None:
    edge, _ = await opened(rig)
    link = edge._link(LinkSettings(name="lte", interface="nowhere0", gateways=(f"127.0.0.1:{rig.hub.port}",)))
    with pytest.raises(LinkDownError, match="nowhere0"):
        await hello(link)


async def test_a_bound_socket_is_opened_anew_after_the_link_was_down(rig: Rig) -> None:
    edge, _ = await opened(rig)
    link = edge._link(LinkSettings(name="lte", interface="lo", gateways=(f"127.0.0.1:{rig.hub.port}",)))
    try:
        await hello(link)
    except LinkDownError as failure:
        pytest.skip(f"binding to an interface is not allowed here: {failure}")
    first = link._coap
    await hello(link)
    assert link._coap is first
    link.mark_down()
    await hello(link)
    assert link._coap is not first
    await link.close()


async def test_a_spent_budget_sends_nothing(rig: Rig) -> None:
    wire = await rig.wire()
    _, link = await opened(rig, wire, month_bytes_max=100)
    with pytest.raises(BudgetExceededError):
        await hello(link)
    assert wire.up_datagrams == 0


async def test_a_session_is_made_anew_before_its_numbers_run_out(rig: Rig) -> None:
    edge, link = await opened(rig)
    await hello(link)
    before = edge.links_store.contexts.get("lte")
    assert link._session is not None
    link._session.sender_sequence_number = OSCORE_REKEY_AFTER
    await hello(link)
    after = edge.links_store.contexts.get("lte")
    assert before is not None
    assert after is not None
    assert before.master_secret != after.master_secret


async def test_a_rest_ends_when_the_link_is_heard(rig: Rig) -> None:
    _, link = await opened(rig)
    link.mark_down()
    link.rest(60)
    assert link.resting
    await hello(link)
    assert not link.resting
    link.rest(60)
    assert not link.resting  # a link that works needs none

"""The gate at the socket: what is refused does not leave, whoever in aiocoap wanted to send it."""

import asyncio
from collections.abc import AsyncIterator

import aiocoap
import pytest
from aiocoap.numbers.constants import Unreliable

from protocol.errors import BudgetExceededError
from store.coapmeter import Datagram, Tally
from tests.store.coaprig import Hasty, Patient, Rig, open_rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig() as rig:
        yield rig


async def test_a_refused_request_fails_with_the_refusal_and_leaves_nothing_behind(rig: Rig) -> None:
    rig.gate.refuse = lambda datagram: True
    for tuning in (Hasty(), Unreliable()):
        with pytest.raises(BudgetExceededError):
            await rig.ask(rig.message("echo", transport_tuning=tuning))
    await asyncio.sleep(0.15)  # longer than a retransmission would take
    assert rig.proxy.from_client == rig.client.meter.sent == Tally()
    assert rig.client.meter.refused.datagrams == 2
    manager = rig.client.interface._ctx
    assert not manager._active_exchanges
    assert not manager._backlogs
    assert not manager.token_manager.outgoing_requests
    rig.gate.refuse = lambda datagram: False
    await rig.ask(rig.message("echo", transport_tuning=Hasty()))
    rig.assert_counted_exactly()


async def test_refused_requests_that_wait_in_line_fail_too(rig: Rig) -> None:
    rig.proxy.drop = lambda data, upwards: True
    waiting = [asyncio.create_task(rig.ask(rig.message("echo", transport_tuning=Patient()))) for _ in range(30)]
    async with asyncio.timeout(60):  # one is on its way, the others are in aiocoap's backlog
        while rig.proxy.from_client.datagrams < 1:
            await asyncio.sleep(0.01)
    assert rig.proxy.from_client.datagrams == 1
    rig.gate.refuse = lambda datagram: rig.proxy.from_client.datagrams >= 1
    rig.proxy.drop = lambda data, upwards: False
    # A reset of the first lets aiocoap go on with the next.
    ((_, first_id),) = rig.client.interface._ctx._active_exchanges
    assert rig.proxy.client is not None
    rig.proxy.transport.sendto(b"\x70\x00" + first_id.to_bytes(2, "big"), rig.proxy.client)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(result, BudgetExceededError) for result in results) == 29
    assert rig.proxy.from_client.datagrams == 1
    assert not rig.client.interface._ctx._backlogs


async def test_the_gate_holds_for_retransmissions_and_acknowledgements(rig: Rig) -> None:
    cap = 60  # one request of about 40, and not another datagram of at least 32

    def over_cap(datagram: Datagram) -> bool:
        return rig.client.meter.sent.bytes_ip + datagram.bytes_ip > cap

    rig.gate.refuse = over_cap
    rig.proxy.drop = lambda data, upwards: upwards
    with pytest.raises(aiocoap.error.NetworkError):
        await rig.ask(rig.message("echo", transport_tuning=Hasty()))
    assert 0 < rig.proxy.from_client.bytes_ip <= cap
    assert rig.client.meter.refused.datagrams >= 2
    rig.assert_counted_exactly()
    rig.proxy.drop = lambda data, upwards: False
    assert rig.proxy.client is not None
    rig.proxy.to_client = rig.proxy.to_client.plus(32)
    rig.proxy.transport.sendto(b"\x40\x00\x12\x34", rig.proxy.client)  # a ping wants a reset
    before = rig.client.meter.refused.datagrams
    await rig.settle()
    assert rig.proxy.from_client.bytes_ip <= cap
    assert rig.client.meter.refused.datagrams == before + 1

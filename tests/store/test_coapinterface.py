"""The meter at aiocoap's socket: every kind of exchange, counted exactly and charged to whom it is for."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import aiocoap
import pytest
from aiocoap import pipe, resource, tokenmanager
from aiocoap.numbers.constants import Unreliable
from aiocoap.oscore_sitewrapper import OscoreSiteWrapper

from store.coapcontext import client_context
from store.coapmeter import Datagram, Tally
from tests.store.coaprig import Big, Hasty, Keys, Rig, open_rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig() as rig:
        yield rig


async def test_a_confirmable_exchange_is_counted(rig: Rig) -> None:
    answer = await rig.ask(rig.message("echo", payload=b"x" * 100))
    assert answer.payload == b"x" * 100
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    total = rig.proxy.to_server.bytes_ip + rig.proxy.from_server.bytes_ip
    assert rig.server_sums() == {"truck": total}


async def test_a_non_confirmable_exchange_is_counted(rig: Rig) -> None:
    await rig.ask(rig.message("echo", payload=b"x", transport_tuning=Unreliable()))
    rig.assert_counted_exactly()
    assert rig.proxy.from_client.datagrams == rig.proxy.from_server.datagrams == 1
    assert rig.client_accounts() == {"a"}


async def test_retransmissions_of_both_sides_are_counted_and_charged(rig: Rig) -> None:
    rig.proxy.drop = lambda data, upwards: rig.proxy.from_client.datagrams < 3
    await rig.ask(rig.message("echo", transport_tuning=Hasty()))
    assert rig.proxy.from_client.datagrams == 3
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}


async def test_an_answer_that_is_repeated_to_a_duplicate_is_counted(rig: Rig) -> None:
    rig.proxy.drop = lambda data, upwards: not upwards and rig.proxy.from_server.datagrams == 1
    await rig.ask(rig.message("echo", payload=b"x", transport_tuning=Hasty()))
    await rig.settle()
    assert rig.proxy.from_server.datagrams == 2
    rig.assert_counted_exactly()
    assert set(rig.server_sums()) == {"truck"}


async def test_a_separate_response_and_its_acknowledgements_are_counted_and_charged(rig: Rig) -> None:
    assert (await rig.ask(rig.message("slow"))).payload == b"late"
    await rig.settle()
    # Request, empty acknowledgement, response, acknowledgement of that.
    assert rig.proxy.from_client.datagrams == rig.proxy.from_server.datagrams == 2
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


async def test_a_block_wise_transfer_is_counted_and_charged_to_the_end(rig: Rig) -> None:
    rig.site.meter = rig.server.meter
    answer = await rig.ask(rig.message("big", code=aiocoap.GET))
    assert len(answer.payload) == 5000
    assert rig.proxy.from_client.datagrams == 5
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


async def test_a_block_wise_upload_is_counted_and_charged_to_the_end(rig: Rig) -> None:
    rig.site.meter = rig.server.meter
    await rig.ask(rig.message("echo", payload=bytes(4000)))
    assert rig.proxy.from_client.datagrams >= 4
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


async def test_parallel_requests_keep_their_accounts_apart(rig: Rig) -> None:
    accounts = [f"account-{number}" for number in range(12)]
    asked = [rig.message("big", code=aiocoap.GET, account=account) for account in accounts]
    await asyncio.gather(*(rig.ask(message) for message in asked))
    rig.assert_counted_exactly()
    shares = Counter(dict.fromkeys(accounts, 0))
    for datagram in rig.at_client:
        shares[cast("str", datagram.account)] += datagram.bytes_ip
    assert set(shares) == set(accounts)
    # Each has fetched the same; only a token or a message id may be a byte longer.
    assert max(shares.values()) - min(shares.values()) <= 5 * 8


async def test_a_burst_is_counted_and_charged(rig: Rig) -> None:
    got: list[Any] = []
    request = rig.message("burst", transport_tuning=Unreliable(), observe=0)
    under = pipe.Pipe(request, rig.client.log)

    def on_event(event: Any) -> bool:
        got.append(event)
        return not event.is_last

    under.on_event(on_event)
    (interface,) = (each for each in rig.client.request_interfaces if isinstance(each, tokenmanager.TokenManager))
    interface.request(under)
    # All 20 carry observe, so aiocoap's client goes on waiting for more.
    async with asyncio.timeout(60):
        while len(got) < 20:
            await asyncio.sleep(0.005)
    rig.assert_counted_exactly()
    assert rig.proxy.to_client.datagrams == 20
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


async def test_a_reset_of_an_unexpected_response_is_counted(rig: Rig) -> None:
    await rig.ask(rig.message("echo"))
    assert rig.proxy.client is not None
    before = rig.proxy.from_client.datagrams
    data = b"\x42\x45\x12\x34\xee\xee"
    rig.proxy.to_client = rig.proxy.to_client.plus(len(data) + 28)
    rig.proxy.transport.sendto(data, rig.proxy.client)
    await rig.settle()
    assert rig.proxy.from_client.datagrams == before + 1
    rig.assert_counted_exactly()
    assert rig.at_client[-1].account is None


async def test_a_ping_is_answered_and_counted(rig: Rig) -> None:
    rig.proxy.client = ("127.0.0.1", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        stranger.bind(("127.0.0.1", 0))
        stranger.sendto(b"\x40\x00\x12\x34", rig.server.address)
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stranger, 100), 60)
    assert answer == b"\x70\x00\x12\x34"
    assert (rig.server.meter.received, rig.server.meter.sent) == (Tally(1, 32), Tally(1, 32))


async def test_oscore_requests_are_charged_without_help_from_their_outer_message(rig: Rig) -> None:
    client_keys, server_keys = Keys(b"\x01", b"\x02"), Keys(b"\x02", b"\x01")
    rig.site.meter = rig.server.meter
    inner = resource.Site()
    inner.add_resource(["big"], Big(rig))
    rig.server.server_credentials[":a"] = server_keys
    wrapper = OscoreSiteWrapper(inner, rig.server.server_credentials)

    async def charge_and_render(each: Any) -> None:
        rig.server.meter.attribute("truck")
        await wrapper.render_to_pipe(each)

    rig.server.serversite = type("Outer", (), {"render_to_pipe": staticmethod(charge_and_render)})()
    rig.client.client_credentials["coap://*"] = client_keys
    answer = await rig.ask(rig.message("big", code=aiocoap.GET))
    assert len(answer.payload) == 5000
    assert client_keys.sender_sequence_number == 5
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


async def test_a_callback_that_fails_does_not_stop_the_exchange(rig: Rig) -> None:
    def fail(datagram: Datagram) -> None:
        raise RuntimeError("the ledger is closed")

    rig.client.meter._on_datagram = fail
    assert (await rig.ask(rig.message("echo", payload=b"x"))).payload == b"x"
    assert rig.client.interface.faults == 2
    assert rig.client.meter.sent == rig.proxy.from_client


async def test_shutdown_in_the_middle_of_requests_is_quiet(rig: Rig) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    rig.proxy.drop = lambda data, upwards: True
    waiting = [asyncio.create_task(rig.ask(rig.message("echo", transport_tuning=Hasty()))) for _ in range(5)]
    await asyncio.sleep(0.01)
    await rig.client.shutdown()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, Exception) for result in results)
    await asyncio.sleep(0.1)
    assert raised == []
    rig.client = await client_context(on_datagram=rig.at_client.append)

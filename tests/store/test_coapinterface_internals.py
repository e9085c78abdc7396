"""Fingerprints of the aiocoap internals that `store.coapinterface` and `store.coapcontext` replace or rely on.

When one of them fails after an upgrade: read what changed in aiocoap, adapt the module, then take the new one over.
"""

import asyncio
import hashlib
import inspect
from collections.abc import AsyncIterator
from typing import Any

import aiocoap
import pytest
from aiocoap import messagemanager, tokenmanager
from aiocoap.numbers.constants import Unreliable
from aiocoap.protocol import Context, Request
from aiocoap.transports import udp6
from aiocoap.transports.oscore import TransportOSCORE
from aiocoap.util import socknumbers
from aiocoap.util.asyncio import recvmsg

from store.coapinterface import DATAGRAM_BYTES_MAX, short_memory
from tests.store.coaprig import Rig, open_rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig() as rig:
        yield rig


async def test_a_received_message_id_is_remembered_for_the_tuned_lifetime(rig: Rig) -> None:
    manager = rig.server.interface._ctx
    delays: list[float] = []

    class Recorder:
        def call_later(self, delay: float, *arguments: Any) -> Any:
            delays.append(delay)
            return asyncio.get_running_loop().call_later(delay, *arguments)

    manager.loop = Recorder()
    await rig.ask(rig.message("echo", transport_tuning=Unreliable()))
    assert delays == [60.0]


def test_a_lifetime_shorter_than_the_retransmissions_is_refused() -> None:
    assert short_memory(exchange_lifetime_s=46.0).EXCHANGE_LIFETIME == 46.0
    with pytest.raises(ValueError):
        short_memory(exchange_lifetime_s=45.0)


# (what is replaced or relied on, SHA-256 of its source in aiocoap 0.4.17)
FINGERPRINTS: dict[str, tuple[Any, str]] = {
    "replaced: next_token": (tokenmanager.TokenManager.next_token, "7daaff4a34449ca0"),
    "replaced: oscore request": (TransportOSCORE.request, "5eb78a35ae048231"),
    "used: oscore _request": (TransportOSCORE._request, "27a77e41a52cdb11"),
    "used: what a request does when it is cancelled": (Request, "c1742798af5b5554"),
    "used: context request": (Context.request, "3740bfa2e9de2ce6"),
    "used: next message id": (messagemanager.MessageManager._next_message_id, "59505751d7f24e7f"),
    "replaced: send": (udp6.MessageInterfaceUDP6.send, "b2401cf3f80c3085"),
    "replaced: datagram_msg_received": (udp6.MessageInterfaceUDP6.datagram_msg_received, "b24499ce829025ac"),
    "replaced: error_received": (udp6.MessageInterfaceUDP6.error_received, "328feca15a9ff24e"),
    "replaced: _create_transport_endpoint": (
        udp6.MessageInterfaceUDP6._create_transport_endpoint.__func__,
        "e60ca75c72a55370",
    ),
    "replaced: create_server_transport_endpoint": (
        udp6.MessageInterfaceUDP6.create_server_transport_endpoint.__func__,
        "3c5ce45592f17911",
    ),
    "extended: __init__": (udp6.MessageInterfaceUDP6.__init__, "6b368bddf58f4b28"),
    "extended: datagram_errqueue_received": (udp6.MessageInterfaceUDP6.datagram_errqueue_received, "7cbf41ed5f729f5d"),
    "used: shutdown": (udp6.MessageInterfaceUDP6.shutdown, "caf5b7fdb637eaa9"),
    "used: transport": (recvmsg.RecvmsgSelectorDatagramTransport, "de73cb97c0492283"),
    "used: context assembly": (Context._append_tokenmanaged_messagemanaged_transport, "264f399a8467a37c"),
    "used: remove_exchange": (messagemanager.MessageManager._remove_exchange, "a8ef9c56a6015e63"),
    "used: send_initially": (messagemanager.MessageManager._send_initially, "87b047727148d080"),
    "used: retransmit": (messagemanager.MessageManager._retransmit, "6e88f16f0f816e49"),
    "used: deduplicate": (messagemanager.MessageManager._deduplicate_message, "c1bd664fd011cac1"),
    "used: token request": (tokenmanager.TokenManager.request, "5194acd3547e4caf"),
}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_the_internals_are_those_that_were_read(name: str) -> None:
    thing, expected = FINGERPRINTS[name]
    found = hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()[:16]
    assert found == expected, f"{name} changed in aiocoap {aiocoap.meta.version}: read it, then adapt"


def test_recverr_is_there() -> None:
    assert socknumbers.HAS_RECVERR
    assert recvmsg.RecvmsgSelectorDatagramTransport.max_size < DATAGRAM_BYTES_MAX

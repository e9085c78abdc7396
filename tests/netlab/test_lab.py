"""The lab itself: its links do what their profiles say, and the kernel counts what the model carried."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace

import pytest

from gateway.demo.linkmodel import DirectionProfile, LinkProfile
from tests.netlab.lab import GATEWAY_ADDRESS, Lab, Place

PORT = 5683
_SO_RCVBUFFORCE = 33
WAY = DirectionProfile(rate_bps=8_000_000, queue_bytes_max=64_000, delay_s=0.05)


def clean(name: str, way: DirectionProfile = WAY) -> LinkProfile:
    return LinkProfile(name=name, up=way, down=way)


def udp(place: Place, *, device: str | None = None, address: tuple[str, int] = ("", 0)) -> socket.socket:
    """Return a UDP socket in a namespace, bound to a device and an address there."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if device is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)  # all of a test may wait here
        made.bind(address)
        made.settimeout(60)
        return made

    return place.namespace.inside(make)


def test_a_datagram_takes_the_link_s_time_each_way_and_the_kernel_counts_it(lab: Lab) -> None:
    truck = lab.truck("arrow", {"lte": clean("lte")})
    with udp(lab.gateway, address=(GATEWAY_ADDRESS, PORT)) as gateway, udp(truck, device="lte") as sender:
        begun = time.monotonic()
        sender.sendto(b"x" * 100, (GATEWAY_ADDRESS, PORT))
        data, address = gateway.recvfrom(2_000)
        gateway.sendto(data[:50], address)
        assert sender.recv(2_000) == b"x" * 50
        assert time.monotonic() - begun >= 0.1
    at_truck, at_gateway = lab.counted(truck, "lte")
    assert (at_truck.sent_bytes, at_truck.received_bytes) == (128, 78)
    assert (at_gateway.sent_bytes, at_gateway.received_bytes) == (78, 128)


def test_a_socket_bound_to_a_link_uses_that_link(lab: Lab) -> None:
    truck = lab.truck("arrow", {"lte": clean("lte"), "sat": clean("sat")})
    with udp(lab.gateway, address=(GATEWAY_ADDRESS, PORT)) as gateway:
        for link in ("sat", "lte"):
            with udp(truck, device=link) as sender:
                sender.sendto(link.encode(), (GATEWAY_ADDRESS, PORT))
                data, (host, _) = gateway.recvfrom(100)
                assert (data.decode(), host) == (link, f"10.77.{truck.ends[link].subnet}.2")


def test_an_address_may_change_under_a_socket(lab: Lab) -> None:
    truck = lab.truck("arrow", {"lte": clean("lte")})
    with udp(lab.gateway, address=(GATEWAY_ADDRESS, PORT)) as gateway, udp(truck, device="lte") as sender:
        hosts = []
        for host in (2, 9):
            lab.change_address(truck, "lte", host)
            sender.sendto(b"", (GATEWAY_ADDRESS, PORT))
            hosts.append(gateway.recvfrom(100)[1][0])
    assert hosts == [f"10.77.{truck.ends['lte'].subnet}.{host}" for host in (2, 9)]


@pytest.mark.parametrize("loss", [0.0, 0.3])
async def test_what_the_model_carries_is_what_the_kernel_counts(lab: Lab, loss: float) -> None:
    way = replace(WAY, loss=loss, duplication=0.1, reordering=0.1)
    truck = lab.truck("arrow", {"lte": clean("lte", way)})
    received = 0
    with udp(lab.gateway, address=(GATEWAY_ADDRESS, PORT)) as gateway, udp(truck, device="lte") as sender:
        for _ in range(500):
            sender.sendto(b"y" * 72, (GATEWAY_ADDRESS, PORT))
            await asyncio.sleep(0.0005)
        while truck.ends["lte"].model.up.counts.offered.packets < 500:
            await asyncio.sleep(0.01)
        counts = truck.ends["lte"].model.up.counts
        assert counts.queue_full.packets == 0
        for _ in range(counts.delivered.packets + counts.duplicated.packets):
            gateway.recv(100)
            received += 1
    at_truck, at_gateway = lab.counted(truck, "lte")
    counts = truck.ends["lte"].model.up.counts
    assert (at_truck.sent_bytes, at_truck.sent_packets) == (counts.offered.bytes_ip, 500) == (50_000, 500)
    assert at_gateway.received_packets == received == counts.delivered.packets + counts.duplicated.packets
    assert abs(counts.loss.packets / 500 - loss) < 0.1
    assert counts.duplicated.packets > 10


def test_an_outage_carries_nothing(lab: Lab) -> None:
    truck = lab.truck("arrow", {"lte": clean("lte")})
    truck.ends["lte"].model.set_outage(True)
    with udp(truck, device="lte") as sender:
        sender.sendto(b"lost", (GATEWAY_ADDRESS, PORT))
        end = time.monotonic() + 60
        while not truck.ends["lte"].model.up.counts.outage.packets:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert lab.counted(truck, "lte")[1].received_packets == 0

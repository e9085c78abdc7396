"""What the kernel says of interfaces: parsed from real messages, and from none that are hostile or new."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.interfaces import Interface, kind_of, parse_address, parse_link, parse_route, read_interfaces


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(flags: int, state: int = 6) -> bytes:
    body = attribute(3, b"wwan0\0") + attribute(4, struct.pack("=I", 1_420)) + attribute(16, bytes([state]))
    return struct.pack("=BxHiII", 0, 1, 7, flags, 0) + body


@pytest.mark.parametrize(
    ("flags", "state", "is_up", "has_carrier"),
    [(0x10001, 6, True, True), (0x1, 2, True, False), (0x10001, 5, True, False), (0, 2, False, False)],
)
def test_a_link_is_up_and_has_a_carrier(flags: int, state: int, is_up: bool, has_carrier: bool) -> None:
    found = parse_link(link(flags, state))
    assert found == Interface("wwan0", 7, is_up=is_up, has_carrier=has_carrier, mtu_bytes=1_420)


def test_an_address_counts_when_it_reaches_beyond_its_link() -> None:
    v4 = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 7) + attribute(2, bytes([10, 0, 0, 9]))
    assert parse_address(v4) == (7, "10.0.0.9")
    v6 = struct.pack("=BBBBI", socket.AF_INET6, 64, 0, 253, 7) + attribute(1, bytes.fromhex("fe80" + "00" * 13 + "01"))
    assert parse_address(v6) == (7, "")


def test_a_default_route_is_known_from_one_to_its_own_network() -> None:
    out = attribute(4, struct.pack("=I", 7))
    assert parse_route(struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 16, 0, 1, 0) + out) == (7, True)
    assert parse_route(struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 2, 253, 1, 0) + out) == (0, False)
    assert parse_route(struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 4, 253, 1, 0) + out) == (7, False)


@given(st.binary(max_size=200))
def test_what_is_no_message_breaks_nothing(data: bytes) -> None:
    parse_link(data)
    parse_address(data)
    parse_route(data)


def test_an_interface_that_cannot_carry_says_why() -> None:
    whole = Interface("eth0", 1, is_up=True, has_carrier=True, mtu_bytes=1500, addresses=("10.0.0.1",))
    assert (whole.can_carry, whole.why_not) == (True, "")
    assert Interface("eth0", 1, is_up=False, has_carrier=False, mtu_bytes=1500).why_not == "is switched off"
    assert Interface("eth0", 1, is_up=True, has_carrier=False, mtu_bytes=1500).why_not == "has no carrier"
    assert Interface("eth0", 1, is_up=True, has_carrier=True, mtu_bytes=1500).why_not == "has no address"


def test_this_machine_has_a_loopback_interface() -> None:
    loopback = read_interfaces()["lo"]
    assert loopback.can_carry
    assert "127.0.0.1" in loopback.addresses


@pytest.mark.parametrize(
    ("name", "event", "driver", "kind"),
    [
        ("wwan0", "DEVTYPE=wwan\n", "", "cellular"),
        ("enx1", "", "cdc_mbim", "cellular"),
        ("ppp0", "", "", "cellular"),
        ("usb0", "", "rndis_host", "tethered"),
        ("wlan0", "DEVTYPE=wlan\n", "iwlwifi", "wifi"),
        ("eth0", "", "e1000e", "ethernet"),
        ("dummy0", "", "", "other"),
    ],
)
def test_what_kind_of_link_it_is_comes_from_its_driver(
    tmp_path: Path, name: str, event: str, driver: str, kind: str
) -> None:
    place = tmp_path / name
    place.mkdir()
    (place / "uevent").write_text(event)
    if driver:
        (tmp_path / "drivers" / driver).mkdir(parents=True)
        (place / "device").mkdir()
        (place / "device" / "driver").symlink_to(tmp_path / "drivers" / driver)
    assert kind_of(name, tmp_path) == kind
    assert Interface(name, 1, is_up=True, has_carrier=True, mtu_bytes=1, kind=kind).looks_metered == (
        kind in ("cellular", "tethered")
    )

"""Against the loopback network, and against computers in a network namespace, some of which drop pings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from edge.collectors import workstations
from edge.collectors.neighbours import NeighbourState
from edge.collectors.workstations import WorkstationsCollector, WorkstationsSettings, expand
from tests.edge.collectors.peers import failure, program, sample


def collector(*hosts: str, **values: object) -> WorkstationsCollector:
    return WorkstationsCollector(WorkstationsSettings(kind="workstations", name="room", hosts=hosts, **values))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workstations, "_PING_S", 0.3)


@pytest.fixture
def classroom() -> Iterator[SimpleNamespace]:
    """A namespace with four workstations on one cable: 11 and 12 are on, 13 drops pings, 14 is off."""
    ip, nft = program("ip", "iproute2"), program("nft", "nftables")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    room, near, far = f"room{os.getpid()}", f"rn{os.getpid()}"[:15], f"rf{os.getpid()}"[:15]
    net = f"10.{os.getpid() >> 8 & 127 | 128}.{os.getpid() & 255}"

    def run(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, timeout=60)

    run(ip, "netns", "add", room)
    try:
        run(ip, "link", "add", near, "type", "veth", "peer", "name", far, "netns", room)
        run(ip, "addr", "add", f"{net}.1/24", "dev", near)
        run(ip, "link", "set", near, "up")
        for last in (11, 12, 13):
            run(ip, "-n", room, "addr", "add", f"{net}.{last}/24", "dev", far)
        run(ip, "-n", room, "link", "set", far, "up")
        run(ip, "netns", "exec", room, nft, "add table ip room")
        run(ip, "netns", "exec", room, nft, "add chain ip room in { type filter hook input priority 0; }")
        run(ip, "netns", "exec", room, nft, f"add rule ip room in ip daddr {net}.13 icmp type echo-request drop")
        yield SimpleNamespace(net=net, near=near, run=lambda *words: run(ip, *words))
    finally:
        subprocess.run([ip, "link", "del", near], check=False, capture_output=True, timeout=60)
        subprocess.run([ip, "netns", "del", room], check=False, capture_output=True, timeout=60)


@pytest.mark.usefixtures("quick")
async def test_who_drops_pings_is_on_and_who_is_off_is_not(classroom: SimpleNamespace):
    source = collector(f"{classroom.net}.11-14")
    assert await sample(source) == {"room.on": "3", "room.which": str(0b0111)}
    classroom.run("link", "set", classroom.near, "down")
    assert await sample(source) == {"room.on": "0", "room.which": "0"}


@pytest.mark.usefixtures("quick")
async def test_twenty_one_are_asked_at_once():
    assert await sample(collector("127.0.1.1-21")) == {"room.on": "21", "room.which": str(2**21 - 1)}


@pytest.mark.usefixtures("quick")
async def test_each_may_have_a_channel_of_its_own():
    assert await sample(collector("127.0.0.1", "::1", each=True)) == {"room.on": "2", "room.ws1": "1", "room.ws2": "1"}


@pytest.mark.usefixtures("quick")
async def test_a_neighbour_that_the_kernel_is_not_sure_of_is_waited_for(monkeypatch, instant_clock):
    answers = [NeighbourState.DELAY, NeighbourState.PROBE, NeighbourState.REACHABLE]

    def neighbours() -> dict[str, NeighbourState]:
        return {"192.0.2.1": answers.pop(0)}

    async def nobody(*_: object, **__: object) -> list[object]:
        return []

    monkeypatch.setattr(workstations, "read_neighbours", neighbours)
    monkeypatch.setattr("icmplib.async_multiping", nobody)
    source = collector("192.0.2.1")
    rows = source.rows(instant_clock)
    assert (await anext(rows)).values == (1, 1)
    await rows.aclose()
    assert instant_clock.sleeps == [1.0, 1.0]


@pytest.mark.usefixtures("quick")
async def test_whoever_may_not_ping_is_told_what_to_do(monkeypatch):
    import icmplib

    tried: list[bool] = []

    async def refused(*_: object, privileged: bool, **__: object) -> list[object]:
        tried.append(privileged)
        raise icmplib.SocketPermissionError(privileged)

    monkeypatch.setattr("icmplib.async_multiping", refused)
    assert "CAP_NET_RAW" in await failure(collector("127.0.0.1"))
    assert tried == [True, False]


async def test_a_kernel_that_does_not_tell_is_a_source_error(monkeypatch):
    def refuses() -> dict[str, NeighbourState]:
        raise PermissionError("no netlink here")

    async def nobody(*_: object, **__: object) -> list[object]:
        return []

    monkeypatch.setattr(workstations, "read_neighbours", refuses)
    monkeypatch.setattr("icmplib.async_multiping", nobody)
    assert "no netlink here" in await failure(collector("192.0.2.1"))


def test_ranges_are_expanded_in_order():
    assert expand(("10.0.0.9-11", "10.0.0.2", "::1")) == ("10.0.0.9", "10.0.0.10", "10.0.0.11", "10.0.0.2", "::1")


@pytest.mark.parametrize(
    ("hosts", "values", "key"),
    [
        (("10.0.0",), {}, "hosts"),
        (("pc-1",), {}, "hosts"),
        (("10.0.0.9-8",), {}, "hosts"),
        (("10.0.0.9-256",), {}, "hosts"),
        (("10.0.0.9-٣٠",), {}, "hosts"),
        (("::1-5",), {}, "hosts"),
        (("10.0.0.1", "10.0.0.1"), {}, "hosts"),
        (("10.0.0.1-70",), {}, "hosts"),
        (("10.0.0.1",), {"period_s": 5.0}, "period_s"),
    ],
)
def test_settings_that_do_not_hold_name_the_key(hosts, values, key: str):
    settings = WorkstationsSettings(kind="workstations", name="room", hosts=hosts, **values)
    with pytest.raises(ValueError, match=f"^{key}: "):
        settings.check()

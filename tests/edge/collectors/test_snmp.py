"""Against Debian's snmpd, by versions 2c and 3."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.collectors.snmp import Counter, SnmpChannel, SnmpCollector, SnmpSettings
from tests.edge.collectors.peers import PATIENCE_S, Peer, failure, free_port, program, sample, watched

LOAD = "1.3.6.1.4.1.2021.10.1.3.1"  # a text, "0.52"
NAME = "1.3.6.1.2.1.1.5.0"
SERVICES = "1.3.6.1.2.1.1.7.0"
GONE = "1.3.6.1.4.1.99999.1.0"
LO_IN = "1.3.6.1.2.1.31.1.1.1.6.1"


class Agent(Peer):
    """An snmpd of one's own on loopback."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port(socket.SOCK_DGRAM)
        config = folder / "snmpd.conf"
        config.write_text(
            f"agentaddress udp:127.0.0.1:{self.port}\nrocommunity opensesame 127.0.0.1\nsysName 12.75\nsysServices 72\n"
            "createUser truck SHA authenticate1 AES privatekey12\nrouser truck priv\n"
        )
        env = {"SNMP_PERSISTENT_DIR": str(folder), "SNMPCONFPATH": str(folder)}
        words = [program("snmpd", "snmpd"), "-f", "-Lo", "-C", "-c", config, "-I", "-smux", "-p", folder / "pid"]
        super().__init__(words, folder, env)

    def up(self) -> None:
        self.start(lambda: "NET-SNMP version" in self.log.read_text(errors="replace"))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    one = Agent(tmp_path_factory.mktemp("snmp"))
    try:
        one.up()
        yield one
    finally:
        one.stop()


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for answers that will not come."""
    monkeypatch.setattr("edge.collectors.snmp._ANSWER_S", 0.3)


def collector(port: int, **values: object) -> SnmpCollector:
    given = {"host": "127.0.0.1", "port": port, "community": "opensesame", **values}
    return SnmpCollector(SnmpSettings(kind="snmp", name="router", **given))


async def test_a_router_is_read_by_the_names_of_its_interfaces(agent: Agent, monkeypatch):
    channels = (
        SnmpChannel(name="volts", oid=NAME, unit="V", decimals=1),
        SnmpChannel(name="services", oid=f".{SERVICES}"),
        SnmpChannel(name="gone", oid=GONE),
        SnmpChannel(name="octets", oid=LO_IN, unit="B", counter=True),
    )
    source = collector(agent.port, interfaces=("lo",), channels=channels, period_s=0.02)
    assert [spec.name for spec in source.channels][:3] == ["router.uptime", "router.lo.received", "router.lo.sent"]
    async with watched(source, monkeypatch) as watch:
        await watch.more(3)
        # What it answers goes over the very interface that is counted.
        await watch.until(lambda: sum(row[6] or 0 for row in watch.rows) > 0 < sum(row[2] or 0 for row in watch.rows))
    assert watch.rows[0] == (0, None, None, 128, 72, None, None)
    assert all(row[3:6] == (128, 72, None) for row in watch.rows)


async def test_a_user_is_recognised_and_its_key_checked(agent: Agent, tmp_path: Path):
    auth, privacy, wrong = tmp_path / "auth", tmp_path / "privacy", tmp_path / "wrong"
    auth.write_text("authenticate1\n")
    privacy.write_text("privatekey12")
    wrong.write_text("wrongwrongwrong")
    who = {"user": "truck", "auth_file": str(auth), "privacy_file": str(privacy)}
    assert await sample(collector(agent.port, **who)) == {"router.uptime": "0"}
    assert "the user right" in await failure(collector(agent.port, **{**who, "auth_file": str(wrong)}))
    gone = {**who, "privacy_file": str(tmp_path / "gone")}
    assert "cannot read the key" in await failure(collector(agent.port, **gone))


async def test_an_agent_that_ends_is_found_out_and_read_again(tmp_path: Path, monkeypatch):
    agent = Agent(tmp_path)
    impatient(monkeypatch)
    async with watched(collector(agent.port, period_s=0.02), monkeypatch) as watch:
        try:
            assert "is SNMP on" in await watch.failed()
            agent.up()
            await watch.more(2)
        finally:
            agent.stop()


async def test_what_is_not_there_is_named(agent: Agent, monkeypatch):
    assert "no interface 'wwan9'; it has: lo" in await failure(collector(agent.port, interfaces=("wwan9",)))
    impatient(monkeypatch)
    assert "is SNMP on, the community" in await failure(collector(agent.port, community="wrong"))


async def test_an_agent_that_answers_nonsense_is_a_source_error(monkeypatch):
    impatient(monkeypatch)

    class Liar(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.number = 0

        def datagram_received(self, data: bytes, caller: tuple[str, int]) -> None:
            self.number += 1
            lies = (b"", b"\xff" * 1400, data[: len(data) // 2], data, b"\x30\x84\xff\xff\xff\xff" + data, data + data)
            for lie in lies:
                self.transport.sendto(lie, caller)

    loop = asyncio.get_running_loop()
    transport, lying = await loop.create_datagram_endpoint(Liar, ("127.0.0.1", 0))
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await failure(collector(transport.get_extra_info("sockname")[1]))
        assert lying.number >= 1
    finally:
        transport.close()


@pytest.mark.parametrize(
    ("counts", "added"),
    [
        ((5, 5, 9), [None, 0, 4]),
        ((2**32 - 10, 20), [None, 30]),  # 32 bits that wrapped
        ((2**31 - 10, 20), [None, 20]),  # began again
        ((2**40, 20), [None, 20]),
        ((5, None, 9, 12), [None, None, None, 3]),
    ],
)
def test_a_counter_tells_what_was_added(counts, added):
    counter = Counter(1)
    assert [counter.added(count) for count in counts] == added


def test_rounding_loses_nothing_over_many_rows():
    counter = Counter(1 / 1024)
    counter.added(0)
    assert sum(counter.added(100 * (row + 1)) or 0 for row in range(10_240)) == 1000


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"uptime": False}, "channels"),
        ({"auth_file": "x"}, "user"),
        ({"user": "a", "privacy_file": "x"}, "auth_file"),
        ({"interfaces": ("lo", "lo")}, "interfaces"),
        ({"channels": (SnmpChannel(name="a", oid=NAME, unit="foot"),)}, r"channels\[0\].unit"),
    ],
)
def test_settings_that_do_not_hold_name_the_key(values, key: str):
    with pytest.raises(ValueError, match=f"^{key}: "):
        collector(1, **values).settings.check()

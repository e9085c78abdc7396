"""Against ModemManager's interface as python-dbusmock plays it, on a private bus; the real mmcli reads the same."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from edge.collectors.modem import ModemCollector, ModemSettings, read_figure
from tests.edge.collectors.peers import PATIENCE_S, Peer, failure, program, sample, watched

MM = "org.freedesktop.ModemManager1"
ROOT = "/org/freedesktop/ModemManager1"
MOCK = "org.freedesktop.DBus.Mock"
ALL = ("state", "quality", "generation", "registration", "operator", "rssi", "rsrp", "rsrq", "snr")
MODEM = {
    "State": Variant("i", 11),
    "SignalQuality": Variant("(ub)", [67, True]),
    "AccessTechnologies": Variant("u", 1 << 14),
    "Model": Variant("s", "EM7565"),
    "PowerState": Variant("u", 3),
}
LTE = {"rsrp": Variant("d", -97.4), "rsrq": Variant("d", -11.0), "rssi": Variant("d", -32768.0)}


class Bus:
    """A message bus of one's own with a ModemManager on it, whose modems the test puts and takes away."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:path={folder / 'bus'}"
        config = folder / "bus.conf"
        config.write_text(
            f"<busconfig><listen>{self.address}</listen><policy context='default'>"
            "<allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/>"
            "</policy></busconfig>"
        )
        self.daemon = Peer([program("dbus-daemon", "dbus-daemon"), f"--config-file={config}", "--nofork"], folder)
        self._socket = folder / "bus"
        python = "/usr/bin/python3"  # Debian's dbusmock is for Debian's Python
        if not Path("/usr/lib/python3/dist-packages/dbusmock").is_dir():
            pytest.skip("needs python-dbusmock: apt-get install python3-dbusmock")
        env = {"DBUS_SYSTEM_BUS_ADDRESS": self.address, "PYTHONPATH": ""}
        self.manager = Peer([python, "-m", "dbusmock", "--system", "-m", MM, ROOT, MM], folder, env)

    def start_manager(self) -> None:
        self.manager.start(self._owned)

    def _owned(self) -> bool:
        words = [program("dbus-send", "dbus-bin"), f"--bus={self.address}", "--print-reply"]
        words += ["--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.NameHasOwner", f"string:{MM}"]
        return b"boolean true" in subprocess.run(words, capture_output=True, check=False, timeout=60).stdout

    def start(self) -> None:
        self.daemon.start(self._socket.exists)
        self.start_manager()

    def stop(self) -> None:
        self.manager.stop()
        self.daemon.stop()

    async def tell(self, path: str, member: str, signature: str, *body: object) -> Any:
        bus = await MessageBus(self.address).connect()
        try:
            reply = await bus.call(
                Message(destination=MM, path=path, interface=MOCK, member=member, signature=signature, body=list(body))
            )
            assert reply is not None
            assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        finally:
            bus.disconnect()

    async def plug(self, number: int, *, signal: dict[str, Any] | None = None) -> str:
        """Put a modem in; with `signal` it has the interface of that name."""
        path = f"{ROOT}/Modem/{number}"
        await self.tell(ROOT, "AddObject", "ssa{sv}a(ssss)", path, f"{MM}.Modem", MODEM, [])
        g3pp = {"RegistrationState": Variant("u", 1), "OperatorCode": Variant("s", "63902")}
        await self.tell(path, "AddProperties", "sa{sv}", f"{MM}.Modem.Modem3gpp", g3pp)
        if signal is not None:
            await self.tell(path, "AddProperties", "sa{sv}", f"{MM}.Modem.Signal", signal)
            await self.tell(path, "AddMethod", "sssss", f"{MM}.Modem.Signal", "Setup", "u", "", "")
        return path


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Bus]:
    one = Bus(folder)
    try:
        await asyncio.to_thread(one.start)
        yield one
    finally:
        one.stop()


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    async with opened(tmp_path) as one:
        yield one


def collector(bus: Bus, **values: object) -> ModemCollector:
    return ModemCollector(ModemSettings(kind="modem", name="lte", bus=bus.address, **values))


async def test_a_modem_is_read_and_its_loss_and_return_are_seen(bus: Bus, monkeypatch):
    assert await failure(collector(bus)) == "ModemManager sees no modem: mmcli -L"
    path = await bus.plug(3, signal={"Lte": Variant("a{sv}", LTE), "Umts": Variant("a{sv}", {})})
    mmcli = program("mmcli", "modemmanager")
    env = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address}
    listing = await asyncio.to_thread(
        subprocess.run, [mmcli, "-L"], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert path in listing.stdout, listing
    assert await sample(collector(bus, channels=ALL)) == {
        "lte.state": "11",
        "lte.quality": "67",
        "lte.generation": "4",
        "lte.registration": "1",
        "lte.operator": "63902",
        "lte.rssi": "",
        "lte.rsrp": "-97",
        "lte.rsrq": "-11",
        "lte.snr": "",
    }
    async with watched(collector(bus, channels=("state", "quality"), period_s=0.05), monkeypatch) as watch:
        await watch.more()
        await bus.tell(path, "UpdateProperties", "sa{sv}", f"{MM}.Modem", {"State": Variant("i", 8)})
        await watch.until(lambda: watch.rows[-1] == (8, 67))
        await bus.tell(ROOT, "RemoveObject", "s", path)
        assert "no modem" in await watch.failed()
        await bus.plug(4)
        await watch.more()
        bus.manager.stop()
        assert "is it running" in await watch.failed()
        await asyncio.to_thread(bus.start_manager)
        await bus.plug(0)
        await watch.more()


async def test_one_of_several_modems_is_picked(bus: Bus):
    await bus.plug(10)
    path = await bus.plug(2)
    await bus.tell(path, "UpdateProperties", "sa{sv}", f"{MM}.Modem", {"State": Variant("i", -1)})
    assert await sample(collector(bus, channels=("state",))) == {"lte.state": "-1"}
    assert await sample(collector(bus, channels=("state",), modem=10)) == {"lte.state": "11"}
    assert "has no modem 7" in await failure(collector(bus, modem=7))


async def test_a_bus_that_is_not_there_says_so(tmp_path: Path):
    for address in (f"unix:path={tmp_path / 'gone'}", "nonsense", "tcp:host=127.0.0.1,port=1"):
        source = ModemCollector(ModemSettings(kind="modem", name="lte", bus=address))
        async with asyncio.timeout(PATIENCE_S):
            assert "is dbus running" in await failure(source)


@pytest.mark.parametrize(
    ("name", "properties", "value"),
    [
        ("generation", {f"{MM}.Modem": {"AccessTechnologies": 0x8000 | 0x4000}}, 5),
        ("generation", {f"{MM}.Modem": {"AccessTechnologies": 1 << 5}}, 3),
        ("generation", {f"{MM}.Modem": {"AccessTechnologies": 1 << 4}}, 2),
        ("generation", {f"{MM}.Modem": {"AccessTechnologies": 0}}, 0),
        ("generation", {f"{MM}.Modem": {"AccessTechnologies": "LTE"}}, None),
        ("generation", {}, None),
        ("quality", {f"{MM}.Modem": {"SignalQuality": (101, True)}}, None),
        ("quality", {f"{MM}.Modem": {"SignalQuality": ()}}, None),
        ("quality", {f"{MM}.Modem": {"SignalQuality": 7}}, None),
        ("state", {f"{MM}.Modem": {"State": 10**30}}, None),
        ("operator", {f"{MM}.Modem.Modem3gpp": {"OperatorCode": ""}}, None),
        ("rsrp", {f"{MM}.Modem.Signal": {"Lte": {"rsrp": -90.0}, "Nr5g": {"rsrp": -80.0}}}, -80),
        ("rsrp", {f"{MM}.Modem.Signal": {"Lte": {"rsrp": float("nan")}}}, None),
        ("rsrp", {f"{MM}.Modem.Signal": {"Lte": 5, "Gsm": {"rsrp": -99.6}}}, -100),
    ],
)
def test_figures_are_read_and_what_cannot_be_is_missing(name: str, properties, value: int | None):
    assert read_figure(name, properties) == value


def test_a_channel_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"^channels\[0\]: there is no 'imei'"):
        ModemSettings(kind="modem", name="lte", channels=("imei",)).check()

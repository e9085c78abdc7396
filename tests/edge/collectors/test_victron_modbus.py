"""Against pymodbus as the GX."""

from __future__ import annotations

import pytest
from pymodbus.simulator import DataType, SimData

from edge.collectors.victron_modbus import REGISTERS, VictronModbusCollector, VictronModbusSettings, read_register
from tests.edge.collectors.peers import failure, free_port, sample, watched
from tests.edge.collectors.test_modbus import instrument

BATTERY = SimData(840, values=[264, 65526, 10, 87, 1, 123, 36], datatype=DataType.REGISTERS)
LOADS = SimData(817, values=[0xFFFF, 70, 0], datatype=DataType.REGISTERS)


def collector(port: int, **values: object) -> VictronModbusCollector:
    return VictronModbusCollector(
        VictronModbusSettings(kind="victron-modbus", name="gx", host="127.0.0.1", port=port, **values)
    )


async def test_a_gx_is_read_in_its_units_and_what_it_has_not_is_missing():
    picked = ("battery_v", "battery_a", "soc", "consumed_ah", "time_to_go", "ac_load_l1_w", "ac_load_l2_w", "pv_w")
    async with instrument(BATTERY, LOADS) as port:
        assert await sample(collector(port, channels=picked)) == {
            "gx.battery_v": "26.4",
            "gx.battery_a": "-1",
            "gx.soc": "87",
            "gx.consumed_ah": "-12.3",
            "gx.time_to_go": "60",
            "gx.ac_load_l1_w": "",
            "gx.ac_load_l2_w": "70",
            "gx.pv_w": "",
        }


async def test_a_gx_that_restarts_is_read_again(monkeypatch):
    port = free_port()
    async with watched(collector(port, period_s=0.01), monkeypatch) as watch:
        async with instrument(BATTERY, port=port):
            await watch.more(2)
        assert await watch.failed()
        async with instrument(BATTERY, port=port):
            await watch.more(2)


async def test_what_is_no_gx_says_so():
    async with instrument(SimData(1, values=[1], datatype=DataType.REGISTERS)) as port:
        assert "a GX is unit 100" in await failure(collector(port))
    assert "switch Modbus TCP on" in await failure(collector(free_port()))


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("battery_v", 0xFFFF, None),
        ("battery_v", 20_000, None),
        ("battery_a", 0x7FFF, None),
        ("battery_a", 0x8000, None),
        ("soc", 101, None),
        ("soc", 100, 100),
        ("grid_l1_w", 0xFFFF, -1),
        ("consumed_ah", 0, 0),
    ],
)
def test_registers_are_scaled_and_what_cannot_be_is_missing(name: str, word: int, value: int | None):
    assert read_register(word, REGISTERS[name]) == value


def test_every_channel_can_be_declared():
    assert len(collector(1, channels=tuple(REGISTERS)).channels) == len(REGISTERS)


@pytest.mark.parametrize(("channels", "says"), [(("soc", "soc"), "twice"), (("volts",), "no 'volts'")])
def test_channels_that_are_not_there_are_refused(channels, says: str):
    with pytest.raises(ValueError, match=says):
        VictronModbusSettings(kind="victron-modbus", name="gx", host="x", channels=channels).check()

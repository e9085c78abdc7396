"""Against pymodbus as the instrument, and against peers that answer nonsense."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from struct import pack

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge.collectors.base import RealClock, SourceError
from edge.collectors.modbus import ModbusReader
from edge.collectors.stream import connect
from tests.edge.collectors.peers import free_port, liar


@asynccontextmanager
async def reader(port: int, unit: int = 100):
    async with connect("127.0.0.1", port, clock=RealClock(time.monotonic)) as stream:
        yield ModbusReader(stream, unit)


@asynccontextmanager
async def instrument(*registers: SimData, port: int | None = None):
    port = port or free_port()
    server = ModbusTcpServer(SimDevice(100, simdata=list(registers)), address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield port
    finally:
        await server.shutdown()


async def test_registers_are_read_and_those_that_are_not_there_are_none():
    async with (
        instrument(SimData(840, values=[264, 65526, 10], datatype=DataType.REGISTERS)) as port,
        reader(port) as gx,
    ):
        assert await gx.read(840, 3) == (264, 65526, 10)
        assert await gx.read(841) == (65526,)
        assert await gx.read(900) is None
        assert await gx.read(840) == (264,)


def answer(
    body: bytes, *, transaction: int = 1, protocol: int = 0, length: int | None = None, unit: int = 100
) -> bytes:
    return pack(">HHHB", transaction, protocol, len(body) + 1 if length is None else length, unit) + body


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (answer(b"\x03\x02\x01\x08", transaction=2), "another question"),
        (answer(b"\x03\x02\x01\x08", unit=1), "another question"),
        (answer(b"\x03\x04\x01\x08\x00\x00"), "does not fit"),
        (answer(b"\x03\x02\x01"), "does not fit"),
        (answer(b"\x04\x02\x01\x08"), "does not fit"),
        (answer(b"\x83\x04"), "exception 4"),
        (answer(b"\x03\x02\x01\x08", protocol=1), "does not speak Modbus"),
        (answer(b"\x03\x02\x01\x08", length=0xFFFF), "does not speak Modbus"),
        (answer(b"", length=1), "does not speak Modbus"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Modbus"),
        (b"\x00\x01\x00", "broke off"),
        (b"", "broke off"),
    ],
)
async def test_an_answer_that_is_none_is_a_source_error(said: bytes, says: str):
    async with liar(said) as port, reader(port) as gx:
        with pytest.raises(SourceError, match=says):
            await gx.read(840)


async def test_silence_is_a_source_error(monkeypatch):
    monkeypatch.setattr("edge.collectors.modbus.ANSWER_S_MAX", 0.05)
    async with liar(hold=True) as port, reader(port) as gx:
        with pytest.raises(SourceError, match="no answer"):
            await gx.read(840)

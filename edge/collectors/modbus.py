"""Reading registers by Modbus TCP ("Modbus Messaging on TCP/IP Implementation Guide" V1.0b, function 3 only).

A request is 12 bytes and an answer is checked against it: transaction, protocol, length, unit, function, byte count.
Deliberately absent: writing; and a library, which would cost a truck more memory than all its collectors.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final

from edge.collectors.base import SourceError
from edge.collectors.stream import ANSWER_S_MAX, Stream

_READ_HOLDING: Final = 3
_ANSWER_BYTES_MAX: Final = 254
# Exceptions that mean "there is no such thing here": illegal function and address, gateway path and no response.
_ABSENT: Final = frozenset({1, 2, 10, 11})


class ModbusReader:
    """Asks over one connection, one question at a time."""

    def __init__(self, stream: Stream, unit: int) -> None:
        self._stream = stream
        self._unit = unit
        self._transaction = 0

    async def read(self, address: int, count: int = 1) -> tuple[int, ...] | None:
        """Return `count` registers as unsigned 16-bit integers, None if the instrument has none there."""
        self._transaction = (self._transaction + 1) & 0xFFFF
        await self._stream.send(
            struct.pack(">HHHBBHH", self._transaction, 0, 6, self._unit, _READ_HOLDING, address, count)
        )
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return await self._answer(count)
        except TimeoutError as error:
            raise SourceError(f"no answer from unit {self._unit} within {ANSWER_S_MAX:g} s") from error

    async def _answer(self, count: int) -> tuple[int, ...] | None:
        transaction, protocol, length, unit = struct.unpack(">HHHB", await self._stream.exactly(7))
        if protocol != 0 or not 3 <= length <= _ANSWER_BYTES_MAX:
            raise SourceError("what answers does not speak Modbus TCP")
        body = await self._stream.exactly(length - 1)
        if (transaction, unit) != (self._transaction, self._unit):
            raise SourceError("an answer to another question came")
        if body[0] == _READ_HOLDING | 0x80:
            if body[1] in _ABSENT:
                return None
            raise SourceError(f"unit {unit} answered with Modbus exception {body[1]}")
        if body[0] != _READ_HOLDING or body[1] != 2 * count or len(body) != 2 + 2 * count:
            raise SourceError("an answer does not fit its question")
        return struct.unpack(f">{count}H", body[2:])

"""Column types and the columns that tables of parcels share.

Epochs are unsigned 64-bit and kept as the signed integer of the same bits, since both databases have signed ones only.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

_SIGN = 1 << 63
_RANGE = 1 << 64


def signed64(value: int) -> int:
    """Return the signed integer of the same 64 bits as an unsigned one."""
    if not 0 <= value < _RANGE:
        raise ValueError(f"{value} is not an unsigned 64-bit integer")
    return value - _RANGE if value >= _SIGN else value


class Unsigned64(TypeDecorator[int]):
    """An unsigned 64-bit integer in a signed column: the same bits."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """Return the signed integer of the same 64 bits."""
        return None if value is None else signed64(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> int | None:
        """Return the unsigned integer of the same 64 bits."""
        return None if value is None else int(value) % _RANGE


# SQLite counts upwards for ever only on a column that is exactly INTEGER PRIMARY KEY AUTOINCREMENT.
SERIAL = BigInteger().with_variant(Integer, "sqlite")


def serial_id() -> Column[int]:
    """Return the column of ids that only ever grow."""
    return Column("id", SERIAL, primary_key=True, autoincrement=True)


def of_parcel() -> list[Column[Any]]:
    """Return the columns that begin a row about a parcel: the parcel's own id, and its truck for the indices."""
    return [
        Column("id", ForeignKey("parcels.id"), primary_key=True, autoincrement=False),
        Column("truck", Text, nullable=False),
    ]

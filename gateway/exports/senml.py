"""SenML (RFC 8428) in JSON and in CBOR: a record for each value, with its unit and time.

Names are "TRUCK/CHANNEL", by way of a base name in the first record; the first record of each time carries it as the
base time. Of steps the mean has the channel's name, and the extremes, the last value and the count (in the unit
"count") have the figure behind a dot. A value whose clock was set later than it was taken carries `repaired`, which a
reader that does not know it ignores (section 4.4). In CBOR (section 6) the array is of indefinite length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cbor2
import msgspec

from gateway.series import Column, TableRow

_CBOR_LABELS = {"bn": -2, "bt": -3, "n": 0, "u": 1, "v": 2}
_COUNT_UNIT = "count"  # of the registry of units, "1 (counter value)"
_Record = Mapping[str, Any]


class _SenmlWriter:
    def __init__(self, truck: str, columns: Sequence[Column], encode: Callable[[_Record], bytes]) -> None:
        self._base: dict[str, str] = {"bn": f"{truck}/"}
        self._names = [column.full_name for column in columns]
        self._units = [_COUNT_UNIT if column.figure == "count" else column.unit for column in columns]
        self._stepped = any(column.figure for column in columns)
        self._encode = encode

    def _records(self, rows: Sequence[TableRow]) -> Iterator[bytes]:
        for row in rows:
            base: dict[str, Any] = {"bt": _number(row.time_ms / 1000)}
            for name, unit, value in zip(self._names, self._units, row.values, strict=True):
                if value is None:
                    continue
                record = self._base | base | {"n": name}
                if unit:
                    record["u"] = unit
                record["v"] = _number(value)
                if row.repaired and not self._stepped:
                    record["repaired"] = True
                self._base, base = {}, {}
                yield self._encode(record)


class SenmlJsonWriter(_SenmlWriter):
    """Writes application/senml+json, one record a line."""

    def __init__(self, truck: str, columns: Sequence[Column]) -> None:
        super().__init__(truck, columns, msgspec.json.encode)
        self._separator = b"\n"

    def begin(self) -> bytes:
        """Return the beginning of the array."""
        return b"["

    def rows(self, rows: Sequence[TableRow]) -> bytes:
        """Return the records of some rows."""
        data = b",\n".join(self._records(rows))
        if not data:
            return b""
        data, self._separator = self._separator + data, b",\n"
        return data

    def end(self) -> bytes:
        """Return the end of the array."""
        return b"\n]\n"


class SenmlCborWriter(_SenmlWriter):
    """Writes application/senml+cbor."""

    def __init__(self, truck: str, columns: Sequence[Column]) -> None:
        super().__init__(truck, columns, _to_cbor)

    def begin(self) -> bytes:
        """Return the beginning of the array."""
        return b"\x9f"

    def rows(self, rows: Sequence[TableRow]) -> bytes:
        """Return the records of some rows."""
        return b"".join(self._records(rows))

    def end(self) -> bytes:
        """Return the end of the array."""
        return b"\xff"


def _to_cbor(record: _Record) -> bytes:
    return cbor2.dumps({_CBOR_LABELS.get(name, name): value for name, value in record.items()}, canonical=True)


def _number(value: float) -> float:
    """Return an integer where it is the same number: both formats write it shorter."""
    return int(value) if value == int(value) else value

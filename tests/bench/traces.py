"""Traces for benchmarks: any CSV by path, or by default 16 real hourly channels from the data files that pvlib ships.

The default is a typical meteorological year (TMY3, hourly; Greensboro, US) as recorded: irradiance, sky, temperature,
wind, pressure, visibility. pvlib is the `bench` extra and is imported only when it is asked for.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge.recording import Recording, read_recording
from protocol.rows import Row

# (column of the TMY3 file, decimal scale: the step that the file's own figures have)
PVLIB_CHANNELS = (
    ("ghi", 1),
    ("dni", 1),
    ("dhi", 1),
    ("ghi_extra", 1),
    ("dni_extra", 1),
    ("TotCld (tenths)", 1),
    ("OpqCld (tenths)", 1),
    ("temp_air", 10),
    ("temp_dew", 10),
    ("relative_humidity", 1),
    ("pressure", 1),
    ("wind_direction", 1),
    ("wind_speed", 10),
    ("Hvis (m)", 1),
    ("CeilHgt (m)", 1),
    ("precipitable_water", 10),
)
_FILE = "723170TYA.CSV"
_FIRST_HOUR_S = 1_767_225_600  # a year of typical months has no date of its own
_HOUR_S = 3_600


def load_trace(path: Path | None = None) -> Recording:
    """Return the recording at `path`, or the default one."""
    return read_recording(path) if path is not None else pvlib_trace()


def pvlib_trace() -> Recording:
    """Return 8,760 hourly rows of 16 channels; raise `ModuleNotFoundError` without the `bench` extra."""
    import pvlib

    source = Path(pvlib.__file__).parent / "data" / _FILE
    data, _ = pvlib.iotools.read_tmy3(source, coerce_year=2026, map_variables=True)
    names = tuple(name.partition(" ")[0] for name, _ in PVLIB_CHANNELS)
    columns = [[round(float(value) * scale) for value in data[name]] for name, scale in PVLIB_CHANNELS]
    rows: tuple[Row, ...] = tuple(
        (_FIRST_HOUR_S + _HOUR_S * at, values) for at, values in enumerate(zip(*columns, strict=True))
    )
    return Recording(names, tuple(scale for _, scale in PVLIB_CHANNELS), 1, rows)


def row_json(recording: Recording, row: Row) -> bytes:
    """Return one row as a JSON object: the time in Unix seconds, then each channel that has a value by its name."""
    values = {
        name: value / scale if scale > 1 else value
        for name, scale, value in zip(recording.names, recording.scales, row[1], strict=True)
        if value is not None
    }
    return msgspec.json.encode({"t": row[0] // recording.ticks_per_s, **values})

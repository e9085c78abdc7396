"""Body and wire bytes a row, of our codec and of what else there is, on one trace in one run; and MQTT by the kernel.

For each number of rows a batch, batches are taken evenly from all over the trace; ours are decoded again and compared.
Wire bytes are of the same envelope for all: signature, parcel, datagram and acknowledgement for each datagram that the
body needs. MQTT over TLS is a real mosquitto, counted by the kernel (`tests.bench.mqtt`).

`make bench ARGS="codec [TRACE.csv] [rows]"`: a trace by path (without one: pvlib's), and how many rows are encoded at
each number of rows a batch (4,000; `all` for the whole trace).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edge.bases import RUN_BATCHES
from edge.measure import (
    ACKNOWLEDGEMENT_BYTES,
    BODY_BYTES_MAX,
    PARCEL_FRAMING_BYTES,
    UPLOAD_BYTES,
    fit,
    measure,
    month_bytes,
)
from edge.recording import Recording
from protocol.batch import ROWS_MAX, decode, decode_on, encode
from protocol.numbers import SIGNATURE_BYTES
from protocol.rows import Row, RowModel
from protocol.schema import Codec, Schema
from tests.bench import mqtt
from tests.bench.traces import load_trace

NAME = "codec"
SIZES = (1, 10, 60, 160, 360, 1440)
MONTH_ROWS = 43_200
ROWS = 4_000
_ENVELOPE = SIGNATURE_BYTES + PARCEL_FRAMING_BYTES + UPLOAD_BYTES + ACKNOWLEDGEMENT_BYTES
# What the design measured on truck-a with its prototype, at SIZES.
_DESIGN_OURS = (33.8, 10.1, 6.92, None, 6.17, 6.05)
_DESIGN_BASED = (18.0, 8.3, 6.62, None, 6.11, 6.03)
_KNOWN_BOUND = 5.41
Figures = tuple[str, str, str, str]


def run(args: list[str]) -> list[Figures]:
    """Return (figure, measured, anchor, limit)."""
    try:
        from tests.bench.rivals import rivals

        paths = [each for each in args if each != "all" and not each.isdigit()]
        recording = load_trace(Path(paths[0]) if paths else None)
        known = rivals(recording)
    except ModuleNotFoundError as error:
        raise SystemExit(f"codec: {error}; the bench group of pyproject.toml is needed (make bench)") from error
    counts = [each for each in args if each == "all" or each.isdigit()]
    rows_max = len(recording.rows) if counts[:1] == ["all"] else int(counts[0]) if counts else ROWS
    samples = {size: batches(recording.rows, size, rows_max) for size in SIZES}
    sizes = "/".join(map(str, SIZES))
    found: list[Figures] = [
        ("rows of the trace, channels", f"{len(recording.rows)}, {len(recording.names)}", "", ""),
        (f"(below: bytes a row at {sizes} rows a batch)", "", "design, on truck-a", ""),
    ]
    for rival in known:
        bodies = [[len(rival.encode(batch)) for batch in samples[size]] for size in SIZES]
        found += _figures(rival.name, bodies, samples, rival.design)
    third = len(recording.rows) // 3
    learnt = fit(recording)
    early = fit(recording, recording.rows[:third])
    late = {size: batches(recording.rows[third:], size, rows_max) for size in SIZES}
    goal = f"at 60: 6.6 on truck-a, 5.6 on truck-b, 1.15 x the bound ({1.15 * _KNOWN_BOUND:.2f} on truck-a)"
    ours = [[len(_checked(learnt, batch)) for batch in samples[size]] for size in SIZES]
    found += _figures("ours, schema learnt from the trace", ours, samples, _DESIGN_OURS, goal)
    unseen = [[len(_checked(early, batch)) for batch in late[size]] for size in SIZES]
    found += _figures("ours, learnt from its first third, on the rest", unseen, late, _DESIGN_OURS, goal)
    based = [[len(body) for body in _runs(early, recording.rows[third:], late[size])] for size in SIZES]
    found += _figures("the same, from an acknowledged batch (runs of eight)", based, late, _DESIGN_BASED, goal)
    return found + _month(recording, learnt, rows_max) + mqtt.figures(recording)


def batches(rows: Sequence[Row], size: int, rows_max: int) -> list[Sequence[Row]]:
    """Return batches of `size` rows, evenly spread, of at most about `rows_max` rows together (at least one batch)."""
    whole = max(1, len(rows) // size)
    wanted = min(whole, max(1, rows_max // size))
    return [rows[at * whole // wanted * size :][:size] for at in range(wanted)]


def _checked(schema: Schema, batch: Sequence[Row], base: RowModel | None = None) -> bytes:
    """Return a batch's body; raise `AssertionError` unless it decodes to the same rows."""
    body = encode(schema, batch, base=base)
    assert decode(schema, body, base=base) == list(batch), "a round trip changed the rows"
    return body


def _runs(schema: Schema, rows: Sequence[Row], found: Sequence[Sequence[Row]]) -> Iterator[bytes]:
    """Yield the bodies of batches, each at its place in a run of `RUN_BATCHES` as a truck makes them."""
    carried = replace(schema, codec=Codec.CARRIED)
    place = {id(row): at for at, row in enumerate(rows)}
    for number, batch in enumerate(found):
        first, base = place[id(batch[0])], None
        for before in range(min(number % RUN_BATCHES, first // len(batch)), 0, -1):
            past = rows[first - before * len(batch) :][: len(batch)]
            base = decode_on(carried, encode(carried, past, base=base), base=base)[1]
        yield _checked(carried, batch, base)


def _figures(
    name: str,
    bodies: Sequence[Sequence[int]],
    samples: dict[int, list[Sequence[Row]]],
    design: Sequence[float | None],
    limit: str = "",
) -> list[Figures]:
    counts = [sum(map(len, samples[size])) for size in SIZES]
    body = [sum(each) / count for each, count in zip(bodies, counts, strict=True)]
    wire = [sum(map(_wire, each)) / count for each, count in zip(bodies, counts, strict=True)]
    return [
        (f"{name}: body", _slashed(body), _slashed(design), limit),
        (f"{name}: wire", _slashed(wire), "", ""),
    ]


def _wire(body: int) -> int:
    """Return the IP bytes of a body, both directions: as many signed datagrams as it needs, each acknowledged."""
    return body + -(-body // BODY_BYTES_MAX) * _ENVELOPE


def _month(recording: Recording, schema: Schema, rows_max: int) -> list[Figures]:
    """Return a month at a row a minute in batches that fill a datagram, and how quickly it is encoded."""
    rows = recording.rows[:rows_max]
    started = time.perf_counter()
    found = measure(schema, rows, rows_max=ROWS_MAX)
    assert found.round_trip, "a round trip changed the rows"
    took_s = time.perf_counter() - started
    month = found.wire_bytes_per_row * MONTH_ROWS
    return [
        (
            "ours: wire bytes a truck-month, a row a minute, filled datagrams",
            f"{month / 1000:.0f} kB ({found.rows / found.batches:.0f} rows a batch)",
            "HTTPS+JSON 207,600 kB; MQTT+TLS 19,800; LwM2M 17,600; JSON+zstd batches 1,100; entropy 234",
            "300 kB",
        ),
        (
            "ours: wire bytes a month at the trace's own period",
            f"{month_bytes(schema, found) / 1000:.0f} kB ({schema.period_s} s a row)",
            "",
            "",
        ),
        (
            "ours: rows a second, encoded / decoded, pure Python, one core",
            f"{found.rows / found.encode_s:.0f} / {found.rows / found.decode_s:.0f} (in {took_s:.0f} s)",
            "13,000-16,000",
            "10,000: 1,000 on a core ten times slower",
        ),
    ]


def _slashed(values: Sequence[float | None]) -> str:
    if all(value is None for value in values):
        return ""
    return "/".join("-" if value is None else f"{value:.1f}" if value >= 20 else f"{value:.2f}" for value in values)

"""What a recording costs on the wire: encode and decode it in batches, check the round trip, count every byte.

A batch is cut at a number of rows, or when its datagram is full; it goes on from the one before, as a truck's do while
there is contact (`alone`: none does). Wire bytes are the body, the parcel around it, and the
packets that carry it and its acknowledgement, at the IP level, without loss.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edge.bases import RUN_BATCHES
from edge.recording import Recording
from protocol.batch import RANGE_CODED, BatchEncoder, decode, decode_on
from protocol.fit import Field, fit_schema
from protocol.numbers import DATAGRAM_PAYLOAD_BYTES_MAX, SIGNATURE_BYTES
from protocol.rows import Row
from protocol.schema import Codec, Schema

# Measured: sequence, kind, schema number and CBOR heads of a sealed parcel; IPv4 + UDP + CoAP + OSCORE of the upload
# and of the answer that acknowledges it.
PARCEL_FRAMING_BYTES: Final = 15
UPLOAD_BYTES: Final = 53
ACKNOWLEDGEMENT_BYTES: Final = 45
BODY_BYTES_MAX: Final = DATAGRAM_PAYLOAD_BYTES_MAX - SIGNATURE_BYTES - PARCEL_FRAMING_BYTES
PRIOR_BYTES_MAX: Final = 700
_MONTH_S: Final = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Measurement:
    """The bytes and seconds that a number of rows took."""

    rows: int
    batches: int
    body_bytes: int
    wire_bytes: int
    round_trip: bool
    encode_s: float
    decode_s: float

    @property
    def body_bytes_per_row(self) -> float:
        """Return the body bytes a row."""
        return self.body_bytes / self.rows

    @property
    def wire_bytes_per_row(self) -> float:
        """Return the wire bytes a row, both directions, with the signature."""
        return self.wire_bytes / self.rows


def fit(recording: Recording, rows: Sequence[Row] | None = None) -> Schema:
    """Return the schema that `suggest` proposes for a recording (or for some of its rows)."""
    units = recording.units or ("",) * len(recording.names)
    columns = zip(recording.names, units, recording.scales, strict=True)
    fields = [Field(name, unit, scale) for name, unit, scale in columns]
    chosen = recording.rows if rows is None else rows
    return fit_schema(fields, chosen, prior_bytes_max=PRIOR_BYTES_MAX, ticks_per_s=recording.ticks_per_s)


def measure(schema: Schema, rows: Sequence[Row], *, rows_max: int, alone: bool = False) -> Measurement:
    """Encode and decode `rows` in batches of at most `rows_max` rows that each fit one datagram."""
    if not alone and schema.codec is Codec.CONTEXT:
        schema = replace(schema, codec=Codec.CARRIED)
    run = 1 if alone or schema.codec is not Codec.CARRIED else RUN_BATCHES
    started = time.process_time()
    bodies = encode_batches(schema, rows, rows_max=rows_max, run=run)
    encoded = time.process_time()
    decoded = _decoded(schema, bodies, run)
    done = time.process_time()
    # A base is named by a byte or two.
    body_bytes = sum(map(len, bodies)) + sum(bool(at % run) for at in range(len(bodies)))
    overhead = SIGNATURE_BYTES + PARCEL_FRAMING_BYTES + UPLOAD_BYTES + ACKNOWLEDGEMENT_BYTES
    return Measurement(
        rows=len(rows),
        batches=len(bodies),
        body_bytes=body_bytes,
        wire_bytes=body_bytes + overhead * len(bodies),
        round_trip=decoded == list(rows),
        encode_s=encoded - started,
        decode_s=done - encoded,
    )


def encode_batches(schema: Schema, rows: Sequence[Row], *, rows_max: int, run: int = 1) -> list[bytes]:
    """Return the bodies of `rows`, cut at `rows_max` rows or where the next row would not fit the datagram.

    In each `run` of batches, the first stands alone and the others go on from the one before.
    """
    bodies: list[bytes] = []
    encoder = BatchEncoder(schema)
    for row in rows:
        if encoder.rows >= rows_max or not encoder.append(row, bytes_max=BODY_BYTES_MAX):
            bodies.append(encoder.finish())
            encoder = BatchEncoder(schema, base=encoder.learnt() if len(bodies) % run else None)
            encoder.append(row, bytes_max=BODY_BYTES_MAX)
    if encoder.rows:
        bodies.append(encoder.finish())
    return bodies


def _decoded(schema: Schema, bodies: Sequence[bytes], run: int) -> list[Row]:
    if schema.codec not in RANGE_CODED:
        return [row for body in bodies for row in decode(schema, body)]
    rows: list[Row] = []
    base = None
    for at, body in enumerate(bodies):
        found, base = decode_on(schema, body, base=base if at % run else None)
        rows += found
    return rows


def month_bytes(schema: Schema, measurement: Measurement) -> int:
    """Return the wire bytes of 30 days at the schema's period and the measured bytes a row."""
    return round(measurement.wire_bytes_per_row * _MONTH_S / schema.period_s)

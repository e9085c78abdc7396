"""A link's weather over time, recorded or from a seed: rate, delay, jitter, loss, outages and new addresses.

A recorded trace is CSV with a header: `t_s` and `rate_bps`, and where they change `delay_s`, `jitter_s`, `loss` and
`address` (the host's number in the link's subnet); a row holds until the next, and a rate of 0 is an outage. Or it is a
trace of Mahimahi (mm-link): a number of milliseconds a line, each an opportunity to deliver 1,500 bytes.
"""

from __future__ import annotations

import csv
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.demo.linkmodel import Condition, DirectionProfile, LinkProfile, OutageProfile

_ROWS_MAX = 100_000
_MAHIMAHI_BYTES, _MAHIMAHI_BIN_MS = 1_500, 100
_RATE_LEAST_BPS = 1_000.0


@dataclass(frozen=True, slots=True)
class Trace:
    """What a link is like from each instant on (in seconds from its start), when it is out, and its addresses."""

    conditions: tuple[Condition, ...]
    outages_s: tuple[tuple[float, float], ...] = ()
    addresses: tuple[tuple[float, int], ...] = ()

    @property
    def seconds(self) -> float:
        """When the last change is."""
        ends = [each.at_s for each in self.conditions] + [end for _, end in self.outages_s]
        return max(ends, default=0.0)

    def profile(self, name: str, base: DirectionProfile) -> LinkProfile:
        """Return a link that is as the trace says both ways, and otherwise as `base`."""
        way = replace(base, conditions=self.conditions)
        return LinkProfile(name, way, way, OutageProfile(scheduled_s=self.outages_s))


def read_trace(file: Path) -> Trace:
    """Read a recorded trace of either form; raise `ValueError` naming the line that is wrong."""
    text = file.read_text(encoding="utf-8")
    first = text.lstrip().split("\n", 1)[0].strip()
    return _from_mahimahi(text) if first.isdigit() else _from_csv(text)


def _from_csv(text: str) -> Trace:
    conditions: list[Condition] = []
    outages: list[tuple[float, float]] = []
    addresses: list[tuple[float, int]] = []
    out_since = None
    at = 0.0
    for number, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        if number > _ROWS_MAX:
            raise ValueError(f"a trace has at most {_ROWS_MAX} rows")
        try:
            at, rate = float(row["t_s"]), float(row["rate_bps"])
            delay, jitter, loss = (float(row[name]) if row.get(name) else None for name in _OPTIONAL)
            if row.get("address"):
                addresses.append((at, int(row["address"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number}: t_s and rate_bps, and numbers, are wanted: {error}") from error
        if rate > 0:
            conditions.append(Condition(at, rate, delay, jitter, loss))
        if rate <= 0 and out_since is None:
            out_since = at
        elif rate > 0 and out_since is not None:
            outages.append((out_since, at))
            out_since = None
    if out_since is not None:
        outages.append((out_since, at + 1.0))
    return Trace(tuple(conditions), tuple(outages), tuple(addresses))


_OPTIONAL = ("delay_s", "jitter_s", "loss")


def _from_mahimahi(text: str) -> Trace:
    lines = text.split()
    if len(lines) > _ROWS_MAX:
        raise ValueError(f"a trace has at most {_ROWS_MAX} lines")
    try:
        bins = Counter(int(line) // _MAHIMAHI_BIN_MS for line in lines)
    except ValueError as error:
        raise ValueError(f"a number of milliseconds a line is wanted: {error}") from error
    conditions: list[Condition] = []
    for number in range(max(bins, default=-1) + 1):
        rate = bins[number] * _MAHIMAHI_BYTES * 8 / (_MAHIMAHI_BIN_MS / 1000)
        rate = max(_RATE_LEAST_BPS, rate)
        if not conditions or conditions[-1].rate_bps != rate:
            conditions.append(Condition(number * _MAHIMAHI_BIN_MS / 1000, rate))
    return Trace(tuple(conditions))


def random_trace(seed: int, *, seconds: float, rate_bps: float, delay_s: float) -> Trace:
    """Return weather from a seed: every few seconds another rate, delay and loss, now and then out or elsewhere."""
    draw = random.Random(f"trace/{seed}")  # noqa: S311 - weather that can be had again, not a secret
    conditions, outages, addresses = [], [], []
    at, host = 0.0, 2
    while at < seconds:
        loss = draw.choice((0.0, 0.0, 0.02, 0.1))
        rate, delay = rate_bps * draw.uniform(0.2, 1.5), delay_s * draw.uniform(0.5, 2.0)
        conditions.append(Condition(at, rate, delay, delay * draw.uniform(0.0, 0.2), loss))
        length = draw.uniform(2.0, 6.0)
        if draw.random() < 0.25:
            outages.append((at + length, at + length + draw.uniform(0.3, 2.0)))
            length = outages[-1][1] - at
            if draw.random() < 0.5:
                host += 1
                addresses.append((outages[-1][1], host))
        at += length
    return Trace(tuple(conditions), tuple(outages), tuple(addresses))

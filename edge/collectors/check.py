"""Try each configured collector once, for `digitruck-edge check`: a printable sample, or what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from edge.collectors.base import ChannelSpec, Clock, Row
from edge.collectors.registry import AnyCollector, CollectorConfigError, build_collectors, plan_collectors
from edge.collectors.run import is_cell, one_line

CHECK_S_MAX: Final = 15.0


@dataclass(frozen=True, slots=True)
class ChannelSample:
    """One channel's value as a person reads it (`12.53`), empty where the source said nothing yet, and its unit."""

    channel: str
    value: str
    unit: str


@dataclass(frozen=True, slots=True)
class CollectorCheck:
    """What one collector gave; `error` is empty if it gave a row."""

    name: str
    error: str = ""
    samples: tuple[ChannelSample, ...] = ()


async def check_collectors(
    tables: Sequence[Mapping[str, Any]], *, clock: Clock, timeout_s: float = CHECK_S_MAX
) -> tuple[CollectorCheck, ...]:
    """Read one row of each `[[collector]]` table, side by side; a table that does not hold is a result too."""
    try:
        built = build_collectors(plan_collectors(tables))
    except CollectorConfigError as error:
        return (CollectorCheck(name=error.key, error=error.reason),)
    failed = tuple(CollectorCheck(name=problem.name, error=problem.error) for problem in built.problems)
    tried = await asyncio.gather(*(_try_once(collector, clock, timeout_s) for collector in built.collectors))
    return (*failed, *tried)


def render_checks(checks: Sequence[CollectorCheck]) -> str:
    """Return plain text: a line for each collector, and its channels below."""
    lines: list[str] = []
    for check in checks:
        lines.append(f"{check.name}: {check.error or 'ok'}")
        width = max((len(sample.channel) for sample in check.samples), default=0)
        lines += [
            f"  {s.channel:<{width}}  {s.value or '-'} {s.unit if s.value else ''}".rstrip() for s in check.samples
        ]
    return "\n".join(lines) if lines else "no collectors are configured"


def format_value(value: int | None, spec: ChannelSpec) -> str:
    """Return a scaled integer as the decimal number it stands for, empty for None."""
    return "" if value is None else f"{Decimal(value) / Decimal(spec.scale):f}"


async def _try_once(collector: AnyCollector, clock: Clock, timeout_s: float) -> CollectorCheck:
    try:
        async with asyncio.timeout(timeout_s), aclosing(collector.rows(clock)) as rows:
            row = await anext(rows)
    except StopAsyncIteration:
        return CollectorCheck(name=collector.name, error="the source ended before its first row")
    except TimeoutError:
        hint = f": {collector.silence_hint}" if collector.silence_hint else ""
        return CollectorCheck(name=collector.name, error=f"no row within {timeout_s:g} s{hint}")
    except Exception as error:  # a collector may raise anything; here it is the answer
        return CollectorCheck(name=collector.name, error=one_line(error))
    channels = collector.channels
    if not isinstance(row, Row) or len(row.values) != len(channels) or not all(is_cell(value) for value in row.values):
        return CollectorCheck(name=collector.name, error="the row does not fit the channels that it declares")
    samples = tuple(
        ChannelSample(channel=spec.name, value=format_value(value, spec), unit=spec.unit)
        for spec, value in zip(channels, row.values, strict=True)
    )
    return CollectorCheck(name=collector.name, samples=samples)

"""What a `[[collector]]` table says of its rows, beside where they come from: their schema, and what is told at once.

The schema is what the collector declares, or what was learnt from its recordings.

`digitruck-edge schema suggest CSV --out FILE` learns one; `schema = "FILE"` in a collector table (relative to the data
folder) uses it. A learnt schema whose channels are not those of the collector is ignored, with a warning:
telemetry never stops because of a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import structlog
from msgspec import Meta

from edge.collectors.check import CollectorCheck
from edge.collectors.registry import AnyCollector, CollectorConfigError
from edge.recorder import Recorder
from edge.triggers import Told
from protocol.errors import PeerError
from protocol.numbers import Precedence
from protocol.schema import Schema, decode_schema

log = structlog.get_logger("edge.series")


class SeriesSettings(Told, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of a `[[collector]]` table that are the same for every kind; `schema` is a file in the data folder.

    `batch_age_s` and `precedence` are of its batches: what is wanted soon closes early, and goes over dearer links.
    """

    schema: str | None = None
    batch_age_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] | None = None
    precedence: Literal["priority", "normal", "bulk"] = "normal"


def split_tables(
    tables: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], dict[str, SeriesSettings]]:
    """Return the tables as collectors know them, and what is for their rows, by name.

    Raises `CollectorConfigError`, which names the key.
    """
    left: list[dict[str, Any]] = []
    found: dict[str, SeriesSettings] = {}
    for index, table in enumerate(tables):
        mine = {key: value for key, value in table.items() if key in SeriesSettings.__struct_fields__}
        try:
            found[str(table.get("name"))] = msgspec.convert(mine, SeriesSettings)
        except msgspec.ValidationError as error:
            reason, _, where = str(error).rpartition(" - at `$")
            raise CollectorConfigError(f"collector[{index}]{where.rstrip('`')}", reason or str(error)) from error
        left.append({key: value for key, value in table.items() if key not in mine})
    return left, found


def check_told(checks: Sequence[CollectorCheck], series: Mapping[str, SeriesSettings]) -> list[CollectorCheck]:
    """Return the results of `check`, with an error where a limit or an `on_change` names a channel that is missing."""
    found = []
    for each in checks:
        told = series.get(each.name)
        there = {sample.channel for sample in each.samples}
        names = [] if told is None else [*(limit.channel for limit in told.limits), *told.on_change]
        missing = [name for name in names if not {name, f"{each.name}.{name}"} & there]
        found.append(replace(each, error=f"it has no channel {missing[0]!r}") if missing and not each.error else each)
    return found


async def open_series(recorder: Recorder, collector: AnyCollector, settings: SeriesSettings, data: Path) -> Schema:
    """Have the recorder take a collector's rows, and return their schema; `data` is the truck's data folder."""
    learnt = None if settings.schema is None else data / settings.schema
    schema = await asyncio.to_thread(series_schema, collector, learnt)
    precedence = Precedence[settings.precedence.upper()]
    await recorder.open_series(collector.name, schema, age_s=settings.batch_age_s, precedence=precedence)
    return schema


def series_schema(collector: AnyCollector, learnt: Path | None) -> Schema:
    """Return the schema for a collector's rows."""
    declared = Schema(
        tuple(spec.to_channel() for spec in collector.channels), period_s=max(1, round(collector.period_s))
    )
    if learnt is None:
        return declared
    try:
        schema = decode_schema(learnt.read_bytes())
    except (OSError, PeerError) as error:
        log.warning("schema.unusable", collector=collector.name, file=str(learnt), reason=str(error))
        return declared
    if [(each.name, each.scale) for each in schema.channels] != [(each.name, each.scale) for each in declared.channels]:
        log.warning("schema.unusable", collector=collector.name, file=str(learnt), reason="its channels are others")
        return declared
    # A CSV names no units: they are the collector's, whatever file was learnt from.
    pairs = zip(schema.channels, declared.channels, strict=True)
    return replace(schema, channels=tuple(replace(each, unit=own.unit) for each, own in pairs))

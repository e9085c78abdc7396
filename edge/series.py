"""What a `[[collector]]` table says of its rows, beside where they come from: their schema, and what is told at once.

The schema is what the collector declares, or what was learnt from its recordings.

`digitruck-edge schema suggest CSV --out FILE` learns one; `schema = "FILE"` in a collector table (relative to the data
folder) uses it. A learnt schema whose channels are not those of the collector is ignored, with a warning:
telemetry never stops because of a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import structlog

from edge.collectors.registry import AnyCollector, CollectorConfigError
from edge.triggers import Told
from protocol.errors import PeerError
from protocol.schema import Schema, decode_schema

log = structlog.get_logger("edge.series")


class SeriesSettings(Told, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of a `[[collector]]` table that are the same for every kind; `schema` is a file in the data folder."""

    schema: str | None = None


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

"""The schema of a collector's rows: what it declares, or what was learnt from its recordings.

`digitruck-edge schema suggest CSV --out FILE` learns one; `schema = "FILE"` in a collector table (relative to the data
folder) uses it. A learnt schema whose channels are not those of the collector is ignored, with a warning:
telemetry never stops because of a file.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from edge.collectors.registry import AnyCollector
from protocol.errors import PeerError
from protocol.schema import Schema, decode_schema

log = structlog.get_logger("edge.series")


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
    return schema

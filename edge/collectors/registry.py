"""From `[[collector]]` tables to collectors: finds a kind by entry point, checks its table, builds it.

Entry points are read by name, so that a broken package of somebody else's does no harm until its kind is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Final

import msgspec

from edge.collectors.base import Collector, CollectorSettings, SourceError
from protocol.errors import PeerError

ENTRY_POINT_GROUP: Final = "digitruck.collectors"
COLLECTORS_MAX: Final = 64
# Used when the package runs from a checkout, where no installed metadata names them.
BUILT_IN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "csv-tail": "edge.collectors.csv_tail:CsvTailCollector",
        "gpsd": "edge.collectors.gpsd:GpsdCollector",
        "host": "edge.collectors.host:HostCollector",
        "http-push": "edge.collectors.push:PushCollector",
        "modem": "edge.collectors.modem:ModemCollector",
        "mqtt": "edge.collectors.mqtt:MqttCollector",
        "nut": "edge.collectors.nut:NutCollector",
        "place": "edge.collectors.place:PlaceCollector",
        "replay": "edge.collectors.replay:ReplayCollector",
        "snmp": "edge.collectors.snmp:SnmpCollector",
        "starlink": "edge.collectors.starlink:StarlinkCollector",
        "vedirect": "edge.collectors.vedirect:VeDirectCollector",
        "venus": "edge.collectors.venus:VenusCollector",
        "victron-modbus": "edge.collectors.victron_modbus:VictronModbusCollector",
        "workstations": "edge.collectors.workstations:WorkstationsCollector",
    }
)

AnyCollector = Collector[CollectorSettings]


class CollectorConfigError(PeerError):
    """A `[[collector]]` table that does not hold; `key` is the path of the key, `reason` what is wrong with it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CollectorPlan:
    """A checked table: the class that will read it and its settings."""

    collector_type: type[AnyCollector]
    settings: CollectorSettings


@dataclass(frozen=True, slots=True)
class BuildProblem:
    """A collector that could not be built now: its name and why."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class BuiltCollectors:
    """What could be built, and what could not; the daemon runs the first and reports the second."""

    collectors: tuple[AnyCollector, ...]
    problems: tuple[BuildProblem, ...]


def find_collector(kind: str) -> type[AnyCollector]:
    """Return the collector class of `kind`; raise LookupError with the kinds there are, or why it does not load."""
    offered = sorted({point.value for point in entry_points(group=ENTRY_POINT_GROUP, name=kind)})
    if len(offered) > 1:
        raise LookupError(f"{len(offered)} installed packages offer {kind!r}: {', '.join(offered)}")
    place = offered[0] if offered else BUILT_IN.get(kind)
    if place is None:
        raise LookupError(f"no collector is called {kind!r}; there are: {', '.join(known_kinds())}")
    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # another's module may raise anything
        raise LookupError(f"{place} does not load: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Collector)):
        raise LookupError(f"{place} is not a collector")
    return found


def known_kinds() -> tuple[str, ...]:
    """Return the kinds that are installed, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)} | set(BUILT_IN)))


def plan_collectors(tables: Sequence[Mapping[str, Any]]) -> tuple[CollectorPlan, ...]:
    """Check `[[collector]]` tables as TOML gives them; raise `CollectorConfigError` with the first wrong key."""
    if len(tables) > COLLECTORS_MAX:
        raise CollectorConfigError("collector", f"at most {COLLECTORS_MAX} collectors, not {len(tables)}")
    plans: list[CollectorPlan] = []
    for index, table in enumerate(tables):
        plan = _plan(table, f"collector[{index}]")
        if any(plan.settings.name == other.settings.name for other in plans):
            raise CollectorConfigError(f"collector[{index}].name", f"{plan.settings.name!r} is used twice")
        plans.append(plan)
    return tuple(plans)


def build_collectors(plans: Sequence[CollectorPlan]) -> BuiltCollectors:
    """Build each collector; one that fails (its file is missing, its channel is another's) does not stop the others."""
    collectors: list[AnyCollector] = []
    problems: list[BuildProblem] = []
    taken: dict[str, str] = {}
    for plan in plans:
        name = plan.settings.name
        try:
            collector = plan.collector_type(plan.settings)
            channels = [channel.name for channel in collector.channels]
            twice = [channel for channel in channels if channel in taken or channels.count(channel) > 1]
            if twice:
                raise SourceError(f"channel {twice[0]!r} is already {taken.get(twice[0], name)}'s; set another prefix")
        except Exception as error:
            problems.append(BuildProblem(name=name, error=str(error) or type(error).__name__))
            continue
        taken.update(dict.fromkeys(channels, name))
        collectors.append(collector)
    return BuiltCollectors(collectors=tuple(collectors), problems=tuple(problems))


def _plan(table: Mapping[str, Any], path: str) -> CollectorPlan:
    if not isinstance(table, Mapping):
        raise CollectorConfigError(path, "must be a table ([[collector]])")
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise CollectorConfigError(f"{path}.kind", f"is missing; there are: {', '.join(known_kinds())}")
    try:
        collector_type = find_collector(kind)
    except LookupError as error:
        raise CollectorConfigError(f"{path}.kind", str(error.args[0])) from error
    settings_type = collector_type.settings_type
    known = msgspec.structs.fields(settings_type)
    for key in table:
        if key not in {field.encode_name for field in known}:
            names = ", ".join(field.encode_name for field in known)
            raise CollectorConfigError(f"{path}.{key}", f"is no key of {kind!r}; its keys are: {names}")
    for field in known:
        if field.required and field.encode_name not in table:
            raise CollectorConfigError(f"{path}.{field.encode_name}", f"is missing; {kind!r} needs it")
    try:
        settings = msgspec.convert(dict(table), type=settings_type)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).rpartition(" - at `$")
        raise CollectorConfigError(path + where.rstrip("`") if reason else path, reason or str(error)) from error
    try:
        settings.check()
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise CollectorConfigError(f"{path}.{key}", reason) from error
    return CollectorPlan(collector_type=collector_type, settings=settings)

"""The fleet for Prometheus: every channel's newest value, when trucks were heard, what is missing, how many bytes.

Read from the database when somebody scrapes, at most every few seconds. How many series there can be is bounded: labels
are trucks, channels of their schemas, links, precedences and causes, and beyond a limit what is left out is counted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.api.limits import METRIC_CHANNELS_MAX, METRIC_TRUCKS_MAX
from store.fleet.evidence import HOUR_MS, LatestValue
from store.fleet.fleet import FleetStore
from store.fleet.limits import PAGE_MAX
from store.fleet.records import FleetSummary, LedgerSum, TruckRecord

_FRESH_S = 5.0
# The ledger is added to in the hour that it is, and written some seconds later: two hours back it stands still.
_OPEN_HOURS = 2


@dataclass(slots=True)
class _Bytes:
    """The ledger added up: by truck, link and direction, and by precedence, cause and direction."""

    links: defaultdict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))
    datagrams: defaultdict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))
    causes: defaultdict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, each: LedgerSum) -> None:
        link = (each.truck, each.link, each.direction.value)
        self.links[link] += each.bytes
        self.datagrams[link] += each.datagrams
        self.causes[(each.precedence.name.lower(), each.cause, each.direction.value)] += each.bytes

    def copy(self) -> _Bytes:
        return _Bytes(self.links.copy(), self.datagrams.copy(), self.causes.copy())


@dataclass(frozen=True, slots=True, eq=False)  # a registry keeps its collectors in a dict
class _Snapshot(Collector):
    """What the database said at one moment."""

    summary: FleetSummary
    trucks: list[TruckRecord]
    missing: dict[str, int]
    values: list[LatestValue]
    values_left_out: int
    bytes: _Bytes

    def collect(self) -> Iterator[Metric]:
        """Yield the families of metrics."""
        yield from self._of_fleet()
        yield from self._of_trucks()
        yield from self._of_channels()
        yield from self._of_ledger()

    def _of_fleet(self) -> Iterator[Metric]:
        counts = self.summary
        trucks = GaugeMetricFamily("digitruck_trucks", "Trucks that are in the fleet or were.", labels=("state",))
        trucks.add_metric(("enrolled",), counts.trucks - counts.revoked)
        trucks.add_metric(("revoked",), counts.revoked)
        yield trucks
        waiting = GaugeMetricFamily(
            "digitruck_batches_waiting", "Batches that wait for a schema, a clock or the rollups.", labels=("for",)
        )
        for name, count in (("schema", counts.parked), ("clock", counts.timeless), ("rollup", counts.to_roll_up)):
            waiting.add_metric((name,), count)
        yield waiting
        yield GaugeMetricFamily("digitruck_quarantined", "Parcels that were put aside.", value=counts.quarantined)
        left_out = GaugeMetricFamily(
            "digitruck_metrics_left_out", "What is not shown, so that series stay bounded.", labels=("what",)
        )
        left_out.add_metric(("trucks",), counts.trucks - counts.revoked - len(self.trucks))
        left_out.add_metric(("channels",), self.values_left_out)
        yield left_out

    def _of_trucks(self) -> Iterator[Metric]:
        names = ("truck", "group")
        heard = GaugeMetricFamily(
            "digitruck_truck_last_heard_timestamp_seconds", "When a truck was heard last (Unix s).", labels=names
        )
        current = GaugeMetricFamily(
            "digitruck_truck_up_to_date", "Whether a truck has what it should have.", labels=names
        )
        missing = GaugeMetricFamily(
            "digitruck_truck_missing_parcels", "Parcels of a truck that are under way or lost.", labels=names
        )
        for truck in self.trucks:
            labels = (truck.name, truck.group)
            if truck.last_heard_ms is not None:
                heard.add_metric(labels, truck.last_heard_ms / 1000)
            if truck.desired_digest is not None:
                current.add_metric(labels, int(truck.desired_digest == truck.desired_reported))
            missing.add_metric(labels, self.missing.get(truck.name, 0))
        yield from (heard, current, missing)

    def _of_channels(self) -> Iterator[Metric]:
        names = ("truck", "channel", "unit")
        value = GaugeMetricFamily("digitruck_channel_value", "The newest value of a channel.", labels=names)
        taken = GaugeMetricFamily(
            "digitruck_channel_timestamp_seconds",
            "When a channel's newest value was taken (Unix s).",
            labels=names,
        )
        for each in self.values:
            labels = (each.truck, each.channel, each.unit)
            value.add_metric(labels, each.value)
            taken.add_metric(labels, each.time_ms / 1000)
        yield from (value, taken)

    def _of_ledger(self) -> Iterator[Metric]:
        links = ("truck", "link", "direction")
        known = {truck.name for truck in self.trucks} | {""}
        for name, text, counted in (
            ("digitruck_link_bytes", "IP bytes between a truck and the gateway.", self.bytes.links),
            ("digitruck_link_datagrams", "Datagrams between a truck and the gateway.", self.bytes.datagrams),
        ):
            family = CounterMetricFamily(name, text, labels=links)
            for labels, count in sorted(counted.items()):
                if labels[0] in known:
                    family.add_metric(labels, count)
            yield family
        causes = CounterMetricFamily(
            "digitruck_cause_bytes", "IP bytes of the fleet by cause.", labels=("precedence", "cause", "direction")
        )
        for labels, count in sorted(self.bytes.causes.items()):
            causes.add_metric(labels, count)
        yield causes


class FleetMetrics:
    """Reads the fleet's figures, and writes them as a scrape wants them."""

    def __init__(self, fleet: FleetStore, *, now_ms: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._fleet = fleet
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._closed = _Bytes()
        self._shown = _Bytes()
        self._closed_until_ms: int | None = None
        self._text = b""
        self._read_at: float | None = None

    async def text(self) -> bytes:
        """Return the metrics in Prometheus' text format, as of now or of a few seconds ago."""
        async with self._lock:
            if self._read_at is None or self._monotonic() - self._read_at > _FRESH_S:
                snapshot = await self._read()
                self._text = await asyncio.to_thread(_written, snapshot)
                self._read_at = self._monotonic()
            return self._text

    async def _read(self) -> _Snapshot:
        trucks = await self._trucks()
        values = await self._values(frozenset(truck.name for truck in trucks))
        known = await self._fleet.count_latest_values()
        return _Snapshot(
            summary=await self._fleet.summary(),
            trucks=trucks,
            missing=await self._fleet.missing_parcels(),
            values=values,
            values_left_out=max(0, known - len(values)),
            bytes=await self._bytes(),
        )

    async def _trucks(self) -> list[TruckRecord]:
        found: list[TruckRecord] = []
        after = None
        while page := await self._fleet.trucks(after, PAGE_MAX):
            found += [truck for truck in page if truck.revoked_ms is None]
            after = page[-1].name
            if len(found) >= METRIC_TRUCKS_MAX:
                break
        return found[:METRIC_TRUCKS_MAX]

    async def _values(self, trucks: frozenset[str]) -> list[LatestValue]:
        found: list[LatestValue] = []
        after = None
        while len(found) < METRIC_CHANNELS_MAX and (page := await self._fleet.latest_values(after)):
            found += [each for each in page if each.truck in trucks]
            after = (page[-1].truck, page[-1].channel, page[-1].unit)
        return found[:METRIC_CHANNELS_MAX]

    async def _bytes(self) -> _Bytes:
        """Add up the ledger: of hours that are over only once, since there are years of them."""
        hour_ms = self._now_ms() // HOUR_MS * HOUR_MS
        open_ms = hour_ms - _OPEN_HOURS * HOUR_MS
        if self._closed_until_ms is None or open_ms > self._closed_until_ms:
            for each in await self._fleet.ledger(since_ms=self._closed_until_ms, until_ms=open_ms):
                self._closed.add(each)
            self._closed_until_ms = open_ms
        found = self._closed.copy()
        for each in await self._fleet.ledger(since_ms=self._closed_until_ms):
            found.add(each)
        # A stranger's bytes may become a truck's when it has shown who it is; a counter never falls all the same.
        for now, before in ((found.links, self._shown.links), (found.datagrams, self._shown.datagrams)):
            now |= {labels: max(now[labels], count) for labels, count in before.items() if labels[0] == ""}
        strangers = {labels: count for labels, count in self._shown.causes.items() if labels[1] == "stranger"}
        found.causes |= {labels: max(found.causes[labels], count) for labels, count in strangers.items()}
        self._shown = found
        return found


def _written(snapshot: _Snapshot) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(snapshot)
    return generate_latest(registry)

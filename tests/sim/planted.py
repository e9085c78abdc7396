"""Ten bugs, planted into the product on purpose: the simulation that does not find them is worth nothing.

Each breaks one rule of the product as a plausible edit would. Found means: a check fails within `SEEDS_MAX` seeds of
the same short, harsh plan under which the sound product holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import edge.batches
import edge.installer
import gateway.commits
import gateway.ingest
import protocol.trust
import store.contexts
import store.database
import store.files
import store.identity
import store.marks
import store.parcels
import store.purses
import store.salvage
import store.staging
from store.fleet.evidence import IngestResult, IngestStatus
from store.fleet.sequences import SequenceSet
from tests.sim.faults import CALM, Troubles
from tests.sim.run import Outcome, run
from tests.sim.world import Plan

SEEDS_MAX, QUICK_SEEDS_MAX = 200, 20
PLAN = Plan(seed=0, trucks=1, days=1.5, row_every_s=900.0, rest_days=6.0)
HARSH = replace(
    CALM,
    weather=0.2,
    outage=0.5,
    move=0.5,
    power_cut=0.2,
    kill=1.0,
    gateway_crash=0.3,
    gateway_restart=2.0,
    config=0.6,
    content=0.5,
    rotation=3.0,
    lies=0.5,
)
Plant = Callable[[], AbstractContextManager[None]]


@contextmanager
def _put(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def _ack_before_commit() -> AbstractContextManager[None]:
    """The gateway acknowledges what it commits a little later."""
    real = gateway.commits.GroupCommit.commit

    async def commit(self: Any, items: Any) -> Any:
        async def later() -> None:
            await asyncio.sleep(5.0)
            await real(self, items)

        self.later = asyncio.create_task(later())
        state = await self._fleet.epoch_state(items[0].truck, items[0].epoch)
        if state is None:
            return await real(self, items)
        found = SequenceSet(state.cumulative, state.ranges)
        for item in items:
            found.add(item.sequence, item.sequence)
        told = replace(state, cumulative=found.cumulative, ranges=found.ranges)
        return [IngestResult(item, IngestStatus.STORED, told) for item in items]

    return _put(gateway.commits.GroupCommit, "commit", commit)


@contextmanager
def _no_folder_fsync() -> Iterator[None]:
    """A file is published without an fsync of its folder."""
    with contextlib.ExitStack() as stack:
        for module in (store.files, store.staging, store.marks, store.salvage, edge.installer):
            stack.enter_context(_put(module, "sync_folder", lambda folder: None))
        yield


def _deduplication_by_link() -> AbstractContextManager[None]:
    """The gateway forgets that a parcel may come again over another link."""
    real = gateway.ingest.Ingest._check

    async def check(self: Any, truck: Any, link: str, *rest: Any) -> Any:
        item = await real(self, truck, link, *rest)
        return replace(item, epoch=item.epoch ^ 1) if link == "sat" else item

    return _put(gateway.ingest.Ingest, "_check", check)


def _reservation_in_memory() -> AbstractContextManager[None]:
    """A slice of the budget is used before it is written down."""
    real = store.purses.Purses._new_slices

    def new_slices(self: Any, *arguments: Any) -> None:
        with _put(self, "_commit", lambda links: None):
            real(self, *arguments)

    return _put(store.purses.Purses, "_new_slices", new_slices)


def _rollback_unchecked() -> AbstractContextManager[None]:
    """A document may be older than one that was trusted."""
    return _put(protocol.trust.TrustedSet, "_check_version", lambda *_: None)


def _synchronous_normal() -> AbstractContextManager[None]:
    """The queue's database does not wait for the disk."""
    real = store.database.Database._pragma

    def pragma(self: Any, name: str, value: object, expected: object) -> None:
        real(self, name, "NORMAL" if name == "synchronous" else value, 1 if name == "synchronous" else expected)

    return _put(store.database.Database, "_pragma", pragma)


def _nonce_in_memory() -> AbstractContextManager[None]:
    """OSCORE sequence numbers are used before they are reserved on the disk."""
    return _put(store.contexts.Contexts, "reserve", lambda self, context_id, below: None)


def _rows_cleared_later() -> AbstractContextManager[None]:
    """A batch is queued in one transaction, and its open rows are cleared in the next."""
    real = edge.batches.OpenBatches._store_batch

    def store_batch(self: Any, series: Any, full: Any, first: Any, token: bytes) -> Any:
        with _put(self._open, "clear", lambda number: None):
            stored = real(self, series, full, None, token)
        asyncio.get_running_loop().call_later(
            1.0, lambda: asyncio.ensure_future(self._writer.run(lambda: self._open.clear(series.number)))
        )
        return stored

    return _put(edge.batches.OpenBatches, "_store_batch", store_batch)


def _content_unsynced() -> AbstractContextManager[None]:
    """A version is activated before its files are on the disk."""
    return _put(edge.installer, "_sync_tree", lambda folder: None)


def _gaps_delivered() -> AbstractContextManager[None]:
    """An acknowledgement's highest sequence is taken for its cumulative one."""
    real = store.parcels.ParcelQueue._deliver

    def deliver(self: Any, ranges: Any, epoch: int, now_s: int) -> int:
        ranges = list(ranges)
        return real(self, [(1, ranges[-1][1])] if len(ranges) > 1 else ranges, epoch, now_s)

    return _put(store.parcels.ParcelQueue, "_deliver", deliver)


@dataclass(frozen=True, slots=True)
class Bug:
    """A planted bug; `seed` finds it in a day of `quick` troubles, which are chosen for it."""

    plant: Plant
    quick: Troubles
    seed: int = 1


_CUTS = replace(CALM, power_cut=0.08)
BUGS: dict[str, Bug] = {
    "ack before commit": Bug(_ack_before_commit, replace(CALM, gateway_crash=0.1), 4),
    "no fsync of the folder": Bug(_no_folder_fsync, _CUTS, 3),
    "deduplication forgotten": Bug(_deduplication_by_link, replace(CALM, weather=0.1, outage=0.2), 2),
    "reservation not persisted": Bug(_reservation_in_memory, replace(_CUTS, content=0.1), 5),
    "rollback check skipped": Bug(_rollback_unchecked, replace(CALM, config=0.15, lies=0.15), 5),
    "synchronous=NORMAL": Bug(_synchronous_normal, _CUTS, 2),
    "nonce not persisted": Bug(_nonce_in_memory, replace(CALM, kill=0.08)),
    "rows cleared in another transaction": Bug(_rows_cleared_later, replace(_CUTS, config=0.1), 7),
    "content activated unsynced": Bug(_content_unsynced, replace(_CUTS, content=0.1), 5),
    "gaps taken for delivered": Bug(
        _gaps_delivered, replace(CALM, weather=0.1, outage=0.15, gateway_crash=0.15, config=0.1), 2
    ),
}
QUICK = replace(PLAN, days=1.0, rest_days=3.0)


def found_quickly(bug: Bug) -> Outcome:
    """Run the seed that finds a bug; as the product changes, so do its runs, and another seed may be the one."""
    outcome = run_quick(bug, bug.seed)
    for seed in range(1, QUICK_SEEDS_MAX + 1):
        if outcome.failure is not None:
            break
        outcome = run_quick(bug, seed)
    return outcome


def run_quick(bug: Bug, seed: int, *, planted: bool = True) -> Outcome:
    """Run one seed of the troubles that are chosen for a bug, with it or without."""
    return run(replace(QUICK, seed=seed), bug.quick, planted=bug.plant if planted else None)


def first_seed(bug: Bug) -> Outcome | None:
    """Return the outcome of the first seed of harsh weather that finds a bug, or None."""
    for seed in range(1, SEEDS_MAX + 1):
        outcome = run(replace(PLAN, seed=seed), HARSH, planted=bug.plant)
        if outcome.failure is not None:
            return outcome
    return None

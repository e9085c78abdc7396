"""Group commit: uploads that arrive while a transaction runs share the next one, and hear of it once it is durable.

When a shared transaction fails, each upload is tried alone, so that what the database will not take from one truck
costs the others nothing; when several fail in a row, the database is at fault and nobody is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from store.fleet.evidence import IngestItem, IngestResult
from store.fleet.fleet import FleetStore

log = structlog.get_logger("gateway.commits")

_GROUP_ITEMS_MAX = 512
_FAILED_ALONE_MAX = 3
# Beyond, whoever uploads waits for room: each holds up to 64 parcels of 16 KiB.
_WAITING_UPLOADS_MAX = 4_096

_Job = tuple[Sequence[IngestItem], "asyncio.Future[list[IngestResult]]"]


class GroupCommit:
    """The one way of parcels into the fleet store."""

    def __init__(self, fleet: FleetStore) -> None:
        self._fleet = fleet
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(_WAITING_UPLOADS_MAX)

    async def commit(self, items: Sequence[IngestItem]) -> list[IngestResult]:
        """Return what became of each item once all are durable; raise what the database raised."""
        done: asyncio.Future[list[IngestResult]] = asyncio.get_running_loop().create_future()
        await self._jobs.put((items, done))
        return await done

    async def run(self) -> None:
        """Commit what waits, group by group, until cancelled."""
        while True:
            jobs = [await self._jobs.get()]
            count = len(jobs[0][0])
            while count < _GROUP_ITEMS_MAX and not self._jobs.empty():
                jobs.append(self._jobs.get_nowait())
                count += len(jobs[-1][0])
            await self._commit_group(jobs)

    async def _commit_group(self, jobs: Sequence[_Job]) -> None:
        error = await self._try(jobs)
        if error is None:
            return
        if len(jobs) == 1:
            _fail(jobs, error)
            return
        failed_in_a_row = 0
        for index, job in enumerate(jobs):
            error = await self._try([job])
            failed_in_a_row = 0 if error is None else failed_in_a_row + 1
            if error is not None:
                _fail([job], error)
            if error is not None and failed_in_a_row == _FAILED_ALONE_MAX:
                _fail(jobs[index + 1 :], error)
                return

    async def _try(self, jobs: Sequence[_Job]) -> Exception | None:
        try:
            results = await self._fleet.ingest([item for items, _ in jobs for item in items])
        except Exception as error:
            # What a failed commit left behind is unknown, but to store a parcel twice is to store it once.
            log.exception("ingest.commit_failed", uploads=len(jobs))
            return error
        except BaseException:
            for _, done in jobs:
                done.cancel()
            raise
        at = 0
        for items, done in jobs:
            if not done.done():
                done.set_result(results[at : at + len(items)])
            at += len(items)
        return None


def _fail(jobs: Sequence[_Job], error: Exception) -> None:
    for _, done in jobs:
        if not done.done():
            done.set_exception(error)

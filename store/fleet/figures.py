"""Figures for a dashboard that no other part has: what is missing of each truck's queue."""

from __future__ import annotations

from sqlalchemy import select

from store.fleet.database import FleetPart
from store.fleet.sequences import SequenceSet, ranges_from_text
from store.fleet.tables import epochs


class Figures(FleetPart):
    """Counts by truck."""

    async def missing_parcels(self) -> dict[str, int]:
        """Return how many parcels are known to be under way or lost, by truck; only those with any."""
        query = select(epochs.c.truck, epochs.c.cumulative, epochs.c.ranges).where(epochs.c.ranges != "")
        missing: dict[str, int] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(query):
                gaps = SequenceSet(row.cumulative, ranges_from_text(row.ranges)).gaps
                missing[row.truck] = missing.get(row.truck, 0) + sum(last - first + 1 for first, last in gaps)
        return missing

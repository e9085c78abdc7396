"""The fleet store: everything that the gateway must not forget, on SQLite or PostgreSQL.

One open `FleetStore` is the sum of its parts, each in the file of its concept. All methods are asynchronous; what
writes has been committed when it returns, and tolerates being repeated.
"""

from __future__ import annotations

from typing import Self

from store.fleet.alarms import Alarms
from store.fleet.audit import Audit
from store.fleet.bills import Bills
from store.fleet.bundles import Bundles
from store.fleet.care import Care
from store.fleet.changes import ChangeFeed
from store.fleet.contexts import Contexts
from store.fleet.database import Database
from store.fleet.documents import Documents
from store.fleet.enrolments import Enrolments
from store.fleet.figures import Figures
from store.fleet.ingest import Ingest
from store.fleet.ledger import Ledger
from store.fleet.migration import check_version, migrate
from store.fleet.parcels import Parcels
from store.fleet.proof import Proof
from store.fleet.rollouts import Rollouts
from store.fleet.rollups import Rollups
from store.fleet.schemas import Schemas
from store.fleet.sticks import Sticks
from store.fleet.telemetry import Telemetry
from store.fleet.tokens import Tokens
from store.fleet.trucks import Trucks
from store.fleet.webhooks import Webhooks

__all__ = ["FleetStore", "migrate"]


class FleetStore(
    Trucks,
    Enrolments,
    Contexts,
    Ingest,
    Parcels,
    Proof,
    Schemas,
    Telemetry,
    Rollups,
    Figures,
    Documents,
    Rollouts,
    Bundles,
    Ledger,
    Alarms,
    Bills,
    Tokens,
    Sticks,
    Audit,
    Care,
    Webhooks,
):
    """An open store. Make one with `open`, and close it."""

    def __init__(self, database: Database) -> None:
        """Work on a database whose schema was checked."""
        super().__init__(database)
        self.changes = ChangeFeed(database)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Open the store at `sqlite:////path/fleet.db` or `postgresql://user@host/name`.

        Raise `SchemaVersionError` unless the database has this release's schema; `migrate` brings an older one to it.
        """
        database = Database(url)
        try:
            await check_version(database)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        """End subscriptions and close every connection."""
        await self.changes.close()
        await self._database.close()

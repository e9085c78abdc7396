"""Incidents: what happened to the store that the gateway must hear of, kept until it is queued as an event.

Recording is part of the transaction that caused it. The daemon turns `unreported` ones into EVENT parcels and marks
them reported in the transaction that queues those, so that an incident is told exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from store.database import Database

# A sick disk could make one at every start, for years: the oldest reported ones go.
INCIDENTS_KEPT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident: an event name such as `store.damaged`, its values, and the time (s, Unix; 0 when unknown)."""

    id: int
    name: str
    at_s: int
    values: Mapping[str, int | bool | str]


def record(database: Database, name: str, values: Mapping[str, int | bool | str], now_s: int) -> None:
    """Write down an incident in the current transaction."""
    details = json.dumps(dict(values), sort_keys=True)
    rowid = database.insert("incidents", {"name": name, "at_s": now_s, "details": details, "reported": 0})
    database.delete("incidents", "id <= :old AND reported = 1", {"old": rowid - INCIDENTS_KEPT})


def unreported(database: Database, limit: int = 16) -> tuple[Incident, ...]:
    """Return the oldest incidents that were not reported yet."""
    sql = "SELECT id, name, at_s, details FROM incidents WHERE reported = 0 ORDER BY id LIMIT :limit"
    return tuple(
        Incident(rowid, name, at_s, json.loads(details))
        for rowid, name, at_s, details in database.rows(sql, {"limit": limit})
    )


def take_over(database: Database, found: Iterable[Incident]) -> None:
    """Write down the incidents of another database, in one transaction."""
    with database.atomic():
        for each in found:
            record(database, each.name, each.values, each.at_s)


def mark_reported(database: Database, ids: Iterable[int]) -> None:
    """Note that these incidents are queued as events; do it in the same transaction."""
    for each in ids:
        database.update("incidents", "id = :id", {"id": each}, reported=1)

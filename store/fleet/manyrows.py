"""Statements of the hot path, run for many rows at once without the per-row work of SQLAlchemy.

Preparing parameters takes SQLAlchemy longer than SQLite takes to insert them. A statement is compiled once for each
dialect, and rows go to the driver as they are: the caller gives values of the database's own types, so an epoch goes
through `signed64` first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Insert, Update


class ManyRows:
    """An INSERT or UPDATE with named parameters, and the names that each row brings."""

    def __init__(self, statement: Insert | Update, names: Sequence[str]) -> None:
        """Take a statement and the names of its parameters; it is compiled when it is first used."""
        self._statement = statement
        self._names = list(names)
        self._compiled: dict[str, tuple[str, itemgetter[Any]]] = {}

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement once for each row."""
        sql, values = self._compiled.get(connection.dialect.name) or self._compile(connection)
        connection.exec_driver_sql(sql, [values(row) for row in rows])

    def _compile(self, connection: Connection) -> tuple[str, itemgetter[Any]]:
        keys = self._names if isinstance(self._statement, Insert) else None
        compiled = self._statement.compile(dialect=connection.dialect, column_keys=keys)
        order = compiled.positiontup
        assert order is not None, "both drivers number their parameters"
        assert set(order) == set(self._names), "each parameter is a column that the rows bring, and the reverse"
        # A getter of one name gives no tuple; all statements here have several.
        made = self._compiled[connection.dialect.name] = (str(compiled), itemgetter(*order))
        return made

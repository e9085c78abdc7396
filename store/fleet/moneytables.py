"""The tables of alarms, and of bills that were compared with the ledger; `store.fleet.tables` has the rest."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from store.fleet.columns import serial_id
from store.fleet.tables import metadata

# What somebody should look at: one row from when a rule begins to hold until it holds no more.
alarms = Table(
    "alarms",
    metadata,
    serial_id(),
    Column("rule", Text, nullable=False),
    Column("truck", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("next_step", Text, nullable=False),
    Column("acknowledged_ms", BigInteger),
    Column("acknowledged_by", Text),
    Column("cleared_ms", BigInteger),
    Column("mailed_ms", BigInteger),
    Index("ix_alarms_truck_rule_subject", "truck", "rule", "subject"),
    sqlite_autoincrement=True,
)

bills = Table(
    "bills",
    metadata,
    serial_id(),
    Column("truck", Text, nullable=False, index=True),
    Column("link", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("billed_bytes", BigInteger, nullable=False),
    Column("counted_bytes", BigInteger, nullable=False),
    Column("put_ms", BigInteger, nullable=False),
    Column("put_by", Text, nullable=False),
    Column("days_json", Text, nullable=False),
    sqlite_autoincrement=True,
)

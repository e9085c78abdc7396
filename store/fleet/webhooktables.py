"""The tables of webhooks and of what is still to be delivered to them; `store.fleet.tables` has the rest."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from store.fleet.columns import serial_id
from store.fleet.tables import metadata

webhooks = Table(
    "webhooks",
    metadata,
    serial_id(),
    Column("url", Text, nullable=False),
    Column("kinds", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    # The last change that was turned into deliveries.
    Column("seen", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

deliveries = Table(
    "deliveries",
    metadata,
    serial_id(),
    Column("webhook", ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("body_json", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("delivered_ms", BigInteger),
    Column("error", Text, nullable=False),
    Index("ix_deliveries_due_ms", "due_ms"),
    Index("ix_deliveries_webhook_id", "webhook", "id"),
    sqlite_autoincrement=True,
)

"""The two tables of rollouts, beside the documents that they are about: how far each is, and for which trucks."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, Table, Text

from store.fleet.tables import metadata

rollout_states = Table(
    "rollout_states",
    metadata,
    Column("digest", ForeignKey("documents.digest"), primary_key=True),
    Column("state", Text, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("quoted_bytes", BigInteger),
    Column("quoted_milli", BigInteger),
    Column("quoted_currency", Text),
)

rollout_trucks = Table(
    "rollout_trucks",
    metadata,
    Column("digest", ForeignKey("rollout_states.digest"), primary_key=True),
    Column("truck", ForeignKey("trucks.name"), primary_key=True, index=True),
    Column("stage", Integer, nullable=False),
    Column("released_ms", BigInteger, nullable=False),
)

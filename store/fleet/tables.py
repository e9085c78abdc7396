"""The gateway's tables as SQLAlchemy Core metadata, for SQLite and PostgreSQL alike.

The migrations make them; a test holds the two equal. Tables of evidence carry `row_hash`, the SHA-256 of the row.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from store.fleet.columns import Unsigned64, of_parcel, serial_id

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

trucks = Table(
    "trucks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("group_name", Text, nullable=False, index=True),
    Column("signing_key", LargeBinary, nullable=False, unique=True),
    Column("credential", LargeBinary, nullable=False, unique=True),
    Column("kid_cred", LargeBinary, nullable=False, unique=True),
    Column("enrolled_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("last_heard_ms", BigInteger),
    Column("last_link", Text),
    Column("last_address", Text),
    Column("status_json", Text),
    Column("status_ms", BigInteger),
)

truck_keys = Table(
    "truck_keys",
    metadata,
    serial_id(),
    Column("truck", ForeignKey("trucks.name"), nullable=False, index=True),
    Column("signing_key", LargeBinary, nullable=False, index=True),
    Column("credential", LargeBinary, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger),
    sqlite_autoincrement=True,
)

enrolments = Table(
    "enrolments",
    metadata,
    serial_id(),
    Column("secret_sha256", LargeBinary, nullable=False, unique=True),
    Column("truck", Text, nullable=False, index=True),
    Column("group_name", Text, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("redeemed_ms", BigInteger),
    sqlite_autoincrement=True,
)

contexts = Table(
    "contexts",
    metadata,
    Column("kid", LargeBinary, primary_key=True),
    Column("peer_id", LargeBinary, nullable=False),
    Column("truck", ForeignKey("trucks.name"), nullable=False, index=True),
    Column("link", Text, nullable=False),
    Column("master_secret", LargeBinary, nullable=False),
    Column("master_salt", LargeBinary, nullable=False),
    Column("sender_sequence_reserved", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

epochs = Table(
    "epochs",
    metadata,
    Column("truck", ForeignKey("trucks.name"), primary_key=True),
    Column("epoch", Unsigned64, primary_key=True),
    Column("ordinal", BigInteger, nullable=False),
    Column("cumulative", BigInteger, nullable=False),
    Column("ranges", Text, nullable=False),
    Column("tombstoned", BigInteger, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
)

parcels = Table(
    "parcels",
    metadata,
    serial_id(),
    Column("truck", Text, nullable=False),
    Column("epoch", Unsigned64, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("precedence", SmallInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("link", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("row_hash", LargeBinary, nullable=False),
    UniqueConstraint("truck", "epoch", "sequence"),
    ForeignKeyConstraint(["truck", "epoch"], ["epochs.truck", "epochs.epoch"]),
    sqlite_autoincrement=True,
)

batches = Table(
    "batches",
    metadata,
    *of_parcel(),
    Column("state", SmallInteger, nullable=False),
    Column("schema_number", Integer, nullable=False),
    Column("schema_digest", ForeignKey("schemas.digest")),
    Column("boot", BigInteger),
    Column("offset_ms", BigInteger),
    Column("first_ms", BigInteger),
    Column("last_ms", BigInteger),
    Column("rows", Integer),
    Index("ix_batches_truck_first_ms_id", "truck", "first_ms", "id"),
    # The few that something still has to be done about: parked, timeless and ready ones.
    Index("ix_batches_open", "state", sqlite_where=text("state < 3"), postgresql_where=text("state < 3")),
)

events = Table(
    "events",
    metadata,
    *of_parcel(),
    Column("name", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("boot", BigInteger),
    Column("offset_ms", BigInteger),
    Column("values_json", Text, nullable=False),
    Index("ix_events_truck_id", "truck", "id"),
)

receipts = Table(
    "receipts",
    metadata,
    *of_parcel(),
    Column("document", SmallInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Index("ix_receipts_truck_id", "truck", "id"),
)

holdings = Table(
    "holdings",
    metadata,
    Column("truck", ForeignKey("trucks.name"), primary_key=True),
    Column("document", SmallInteger, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("epoch_ordinal", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
)

schemas = Table(
    "schemas",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("encoded", LargeBinary, nullable=False),
)

truck_schemas = Table(
    "truck_schemas",
    metadata,
    Column("truck", Text, primary_key=True),
    Column("epoch", Unsigned64, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", ForeignKey("schemas.digest"), nullable=False),
    Column("registered_ms", BigInteger, nullable=False),
    ForeignKeyConstraint(["truck", "epoch"], ["epochs.truck", "epochs.epoch"]),
)

tombstones = Table(
    "tombstones",
    metadata,
    *of_parcel(),
    Column("of_epoch", Unsigned64, nullable=False),
    Column("ranges", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Index("ix_tombstones_truck_id", "truck", "id"),
)

boots = Table(
    "boots",
    metadata,
    Column("truck", ForeignKey("trucks.name"), primary_key=True),
    Column("boot", BigInteger, primary_key=True, autoincrement=False),
    Column("offset_ms", BigInteger, nullable=False),
)

quarantined = Table(
    "quarantined",
    metadata,
    serial_id(),
    Column("truck", Text, nullable=False),
    Column("epoch", Unsigned64),
    Column("sequence", BigInteger),
    Column("sealed", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Index("ix_quarantined_truck_id", "truck", "id"),
    sqlite_autoincrement=True,
)

rollups = Table(
    "rollups",
    metadata,
    Column("truck", ForeignKey("trucks.name"), primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("step_ms", Integer, primary_key=True, autoincrement=False),
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("minimum", Float(53), nullable=False),
    Column("maximum", Float(53), nullable=False),
    Column("sum", Float(53), nullable=False),
    Column("last", Float(53), nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("repaired", BigInteger, nullable=False),
    Column("period_s", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# Of each channel the newest value, so that a dashboard need not look for it among years of rollups.
summarised = Table(
    "summarised",
    metadata,
    Column("truck", ForeignKey("trucks.name"), primary_key=True),
    Column("epoch", Unsigned64, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

latest_values = Table(
    "latest_values",
    metadata,
    Column("truck", ForeignKey("trucks.name"), primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("value", Float(53), nullable=False),
    sqlite_with_rowid=False,
)

documents = Table(
    "documents",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("bundle", Text),
    Column("group_name", Text),
    Column("issued_s", BigInteger, nullable=False),
    Column("expires_s", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("put_by", Text, nullable=False),
    Column("signed", LargeBinary, nullable=False),
    # The SHA-256 of kind and name: a name that lists a thousand trucks is too long for an index.
    Column("stream", LargeBinary, nullable=False),
    Index("ix_documents_stream_version", "stream", "version"),
    Index("ix_documents_kind_received_ms", "kind", "received_ms"),
    Index("ix_documents_received_ms_digest", "received_ms", "digest"),
    Index("ix_documents_kind_group_name", "kind", "group_name"),
)

document_trucks = Table(
    "document_trucks",
    metadata,
    Column("truck", Text, primary_key=True),
    Column("digest", ForeignKey("documents.digest", ondelete="CASCADE"), primary_key=True, index=True),
)

bundles = Table(
    "bundles",
    metadata,
    Column("name", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("manifest", ForeignKey("documents.digest"), nullable=False, unique=True),
    Column("content", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("files", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("put_by", Text, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("put_by", Text, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("put_by", Text, nullable=False),
)

desired_states = Table(
    "desired_states",
    metadata,
    Column("truck", ForeignKey("trucks.name"), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("signed", LargeBinary, nullable=False),
    Column("set_ms", BigInteger, nullable=False),
)

ledger_lines = Table(
    "ledger_lines",
    metadata,
    Column("source", Text, primary_key=True),
    Column("truck", Text, primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("link", Text, primary_key=True),
    Column("precedence", SmallInteger, primary_key=True, autoincrement=False),
    Column("cause", Text, primary_key=True),
    Column("direction", Text, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("datagrams", BigInteger, nullable=False),
    Column("billed_bytes", BigInteger, nullable=False),
    Column("money_nano", BigInteger),
    sqlite_with_rowid=False,
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_sha256", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)

sticks = Table(
    "sticks",
    metadata,
    Column("stick", LargeBinary, primary_key=True),
    Column("made_ms", BigInteger, nullable=False, index=True),
    Column("made_by", Text, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("key", LargeBinary),
    Column("signed", LargeBinary, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("imported_ms", BigInteger),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail_json", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    serial_id(),
    Column("kind", Text, nullable=False),
    Column("truck", Text),
    Column("subject", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

"""The first schema. A revision is never edited once it was released: the next one says what changes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail_json", sa.Text(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_table(
        "blobs",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("put_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blobs"),
    )
    op.create_table(
        "changes",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("truck", sa.Text()),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "documents",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("bundle", sa.Text()),
        sa.Column("group_name", sa.Text()),
        sa.Column("issued_s", sa.BigInteger(), nullable=False),
        sa.Column("expires_s", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("put_by", sa.Text(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.Column("stream", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_documents"),
    )
    op.create_index("ix_documents_kind_group_name", "documents", ["kind", "group_name"])
    op.create_index("ix_documents_kind_received_ms", "documents", ["kind", "received_ms"])
    op.create_index("ix_documents_received_ms_digest", "documents", ["received_ms", "digest"])
    op.create_index("ix_documents_stream_version", "documents", ["stream", "version"])
    op.create_table(
        "enrolments",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("redeemed_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_enrolments"),
        sa.UniqueConstraint("secret_sha256", name="uq_enrolments_secret_sha256"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_enrolments_truck", "enrolments", ["truck"])
    op.create_table(
        "ledger_lines",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("link", sa.Text(), nullable=False),
        sa.Column("precedence", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("datagrams", sa.BigInteger(), nullable=False),
        sa.Column("money_milli", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "source", "truck", "hour_ms", "link", "precedence", "cause", "direction", "currency", name="pk_ledger_lines"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "quarantined",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger()),
        sa.Column("sequence", sa.BigInteger()),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quarantined"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_quarantined_truck_id", "quarantined", ["truck", "id"])
    op.create_table(
        "schemas",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("encoded", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_schemas"),
    )
    op.create_table(
        "tokens",
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger()),
        sa.Column("revoked_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("token_sha256", name="pk_tokens"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
    )
    op.create_table(
        "trucks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("signing_key", sa.LargeBinary(), nullable=False),
        sa.Column("credential", sa.LargeBinary(), nullable=False),
        sa.Column("kid_cred", sa.LargeBinary(), nullable=False),
        sa.Column("enrolled_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger()),
        sa.Column("last_heard_ms", sa.BigInteger()),
        sa.Column("last_link", sa.Text()),
        sa.Column("last_address", sa.Text()),
        sa.Column("status_json", sa.Text()),
        sa.Column("status_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("name", name="pk_trucks"),
        sa.UniqueConstraint("credential", name="uq_trucks_credential"),
        sa.UniqueConstraint("kid_cred", name="uq_trucks_kid_cred"),
        sa.UniqueConstraint("signing_key", name="uq_trucks_signing_key"),
    )
    op.create_index("ix_trucks_group_name", "trucks", ["group_name"])
    op.create_table(
        "uploads",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("put_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_uploads"),
    )
    op.create_table(
        "boots",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("boot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("offset_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_boots_trucks"),
        sa.PrimaryKeyConstraint("truck", "boot", name="pk_boots"),
    )
    op.create_table(
        "bundles",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("put_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["manifest"], ["documents.digest"], name="fk_bundles_documents"),
        sa.PrimaryKeyConstraint("name", "label", name="pk_bundles"),
        sa.UniqueConstraint("manifest", name="uq_bundles_manifest"),
    )
    op.create_table(
        "contexts",
        sa.Column("kid", sa.LargeBinary(), nullable=False),
        sa.Column("peer_id", sa.LargeBinary(), nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("link", sa.Text(), nullable=False),
        sa.Column("master_secret", sa.LargeBinary(), nullable=False),
        sa.Column("master_salt", sa.LargeBinary(), nullable=False),
        sa.Column("sender_sequence_reserved", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_contexts_trucks"),
        sa.PrimaryKeyConstraint("kid", name="pk_contexts"),
    )
    op.create_index("ix_contexts_truck", "contexts", ["truck"])
    op.create_table(
        "desired_states",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_desired_states_trucks"),
        sa.PrimaryKeyConstraint("truck", name="pk_desired_states"),
    )
    op.create_table(
        "document_trucks",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["documents.digest"], name="fk_document_trucks_documents", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("truck", "digest", name="pk_document_trucks"),
    )
    op.create_index("ix_document_trucks_digest", "document_trucks", ["digest"])
    op.create_table(
        "epochs",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("cumulative", sa.BigInteger(), nullable=False),
        sa.Column("ranges", sa.Text(), nullable=False),
        sa.Column("tombstoned", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_epochs_trucks"),
        sa.PrimaryKeyConstraint("truck", "epoch", name="pk_epochs"),
    )
    op.create_table(
        "holdings",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("document", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("epoch_ordinal", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_holdings_trucks"),
        sa.PrimaryKeyConstraint("truck", "document", "name", name="pk_holdings"),
    )
    op.create_table(
        "rollups",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("step_ms", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("minimum", sa.Float(precision=53), nullable=False),
        sa.Column("maximum", sa.Float(precision=53), nullable=False),
        sa.Column("sum", sa.Float(precision=53), nullable=False),
        sa.Column("last", sa.Float(precision=53), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_rollups_trucks"),
        sa.PrimaryKeyConstraint("truck", "channel", "step_ms", "start_ms", name="pk_rollups"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "truck_keys",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("signing_key", sa.LargeBinary(), nullable=False),
        sa.Column("credential", sa.LargeBinary(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger()),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_truck_keys_trucks"),
        sa.PrimaryKeyConstraint("id", name="pk_truck_keys"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_truck_keys_signing_key", "truck_keys", ["signing_key"])
    op.create_index("ix_truck_keys_truck", "truck_keys", ["truck"])
    op.create_table(
        "parcels",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("precedence", sa.SmallInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("link", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("row_hash", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["truck", "epoch"], ["epochs.truck", "epochs.epoch"], name="fk_parcels_epochs"),
        sa.PrimaryKeyConstraint("id", name="pk_parcels"),
        sa.UniqueConstraint("truck", "epoch", "sequence", name="uq_parcels_truck_epoch_sequence"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "truck_schemas",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("registered_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["schemas.digest"], name="fk_truck_schemas_schemas"),
        sa.ForeignKeyConstraint(["truck", "epoch"], ["epochs.truck", "epochs.epoch"], name="fk_truck_schemas_epochs"),
        sa.PrimaryKeyConstraint("truck", "epoch", "number", name="pk_truck_schemas"),
    )
    op.create_table(
        "batches",
        sa.Column("id", _SERIAL, autoincrement=False, nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("schema_number", sa.Integer(), nullable=False),
        sa.Column("schema_digest", sa.LargeBinary()),
        sa.Column("boot", sa.BigInteger()),
        sa.Column("offset_ms", sa.BigInteger()),
        sa.Column("first_ms", sa.BigInteger()),
        sa.Column("last_ms", sa.BigInteger()),
        sa.Column("rows", sa.Integer()),
        sa.ForeignKeyConstraint(["id"], ["parcels.id"], name="fk_batches_parcels"),
        sa.ForeignKeyConstraint(["schema_digest"], ["schemas.digest"], name="fk_batches_schemas"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index(
        "ix_batches_open",
        "batches",
        ["state"],
        unique=False,
        sqlite_where=sa.text("state < 3"),
        postgresql_where=sa.text("state < 3"),
    )
    op.create_index("ix_batches_truck_first_ms_id", "batches", ["truck", "first_ms", "id"])
    op.create_table(
        "events",
        sa.Column("id", _SERIAL, autoincrement=False, nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.BigInteger()),
        sa.Column("offset_ms", sa.BigInteger()),
        sa.Column("values_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["parcels.id"], name="fk_events_parcels"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_truck_id", "events", ["truck", "id"])
    op.create_table(
        "receipts",
        sa.Column("id", _SERIAL, autoincrement=False, nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("document", sa.SmallInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["parcels.id"], name="fk_receipts_parcels"),
        sa.PrimaryKeyConstraint("id", name="pk_receipts"),
    )
    op.create_index("ix_receipts_truck_id", "receipts", ["truck", "id"])
    op.create_table(
        "tombstones",
        sa.Column("id", _SERIAL, autoincrement=False, nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("of_epoch", sa.BigInteger(), nullable=False),
        sa.Column("ranges", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["parcels.id"], name="fk_tombstones_parcels"),
        sa.PrimaryKeyConstraint("id", name="pk_tombstones"),
    )
    op.create_index("ix_tombstones_truck_id", "tombstones", ["truck", "id"])

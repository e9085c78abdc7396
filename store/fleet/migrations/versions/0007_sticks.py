"""Couriers' sticks: which were made, for whom, until when, and which of them were lost."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "sticks",
        sa.Column("stick", sa.LargeBinary(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary()),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger()),
        sa.Column("imported_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("stick", name="pk_sticks"),
    )
    op.create_index("ix_sticks_made_ms", "sticks", ["made_ms"])

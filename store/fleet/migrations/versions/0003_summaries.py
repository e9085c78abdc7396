"""Which batches a summary was rolled up for, so that their detail, should it come, is not counted again."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "summarised",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_summarised_trucks"),
        sa.PrimaryKeyConstraint("truck", "epoch", "sequence", name="pk_summarised"),
        sqlite_with_rowid=False,
    )

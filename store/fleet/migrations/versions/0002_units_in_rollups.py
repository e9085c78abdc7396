"""Rollups by unit, with what was repaired and how often rows come; and the newest value of each channel.

The rollups are made anew from the evidence, in the background, once the gateway runs.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Replace the table of rollups, and have every batch rolled up again."""
    op.drop_table("rollups")
    op.create_table(
        "rollups",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("step_ms", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("minimum", sa.Float(53), nullable=False),
        sa.Column("maximum", sa.Float(53), nullable=False),
        sa.Column("sum", sa.Float(53), nullable=False),
        sa.Column("last", sa.Float(53), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.Column("repaired", sa.BigInteger(), nullable=False),
        sa.Column("period_s", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_rollups_trucks"),
        sa.PrimaryKeyConstraint("truck", "channel", "unit", "step_ms", "start_ms", name="pk_rollups"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "latest_values",
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_latest_values_trucks"),
        sa.PrimaryKeyConstraint("truck", "channel", "unit", name="pk_latest_values"),
        sqlite_with_rowid=False,
    )
    op.execute("UPDATE batches SET state = 2 WHERE state = 3")  # rolled up before: ready again

"""How far each rollout is, and to which trucks it was released. What is under way was released to all it is for."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables, and fill them from the rollouts that are here."""
    op.create_table(
        "rollout_states",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("quoted_bytes", sa.BigInteger()),
        sa.Column("quoted_milli", sa.BigInteger()),
        sa.Column("quoted_currency", sa.Text()),
        sa.ForeignKeyConstraint(["digest"], ["documents.digest"], name="fk_rollout_states_documents"),
        sa.PrimaryKeyConstraint("digest", name="pk_rollout_states"),
    )
    op.create_table(
        "rollout_trucks",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("truck", sa.Text(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("released_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["rollout_states.digest"], name="fk_rollout_trucks_rollout_states"),
        sa.ForeignKeyConstraint(["truck"], ["trucks.name"], name="fk_rollout_trucks_trucks"),
        sa.PrimaryKeyConstraint("digest", "truck", name="pk_rollout_trucks"),
    )
    op.create_index("ix_rollout_trucks_truck", "rollout_trucks", ["truck"])
    op.execute(
        "INSERT INTO rollout_states (digest, state, stage, reason, changed_by, changed_ms)"
        " SELECT digest, 'running', 1, '', put_by, received_ms FROM documents WHERE kind = 5"
    )
    op.execute(
        "INSERT INTO rollout_trucks (digest, truck, stage, released_ms)"
        " SELECT d.digest, t.name, 1, d.received_ms FROM documents d JOIN trucks t ON t.group_name = d.group_name"
        " WHERE d.kind = 5"
        " UNION SELECT d.digest, t.name, 1, d.received_ms FROM documents d"
        " JOIN document_trucks n ON n.digest = d.digest JOIN trucks t ON t.name = n.truck"
        " WHERE d.kind = 5"
    )

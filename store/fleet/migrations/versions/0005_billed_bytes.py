"""The ledger keeps what was billed: bytes rounded as the tariff says, and money in billionths, NULL if not known."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Bring the sums along; a price of 0 meant that none was known."""
    op.add_column("ledger_lines", sa.Column("billed_bytes", sa.BigInteger()))
    op.add_column("ledger_lines", sa.Column("money_nano", sa.BigInteger()))
    op.execute("UPDATE ledger_lines SET billed_bytes = bytes")
    op.execute("UPDATE ledger_lines SET money_nano = money_milli * 1000000 WHERE money_milli <> 0")
    op.execute("UPDATE ledger_lines SET currency = '' WHERE money_milli = 0")
    with op.batch_alter_table("ledger_lines") as table:
        table.drop_column("money_milli")
        table.alter_column("billed_bytes", existing_type=sa.BigInteger(), nullable=False)

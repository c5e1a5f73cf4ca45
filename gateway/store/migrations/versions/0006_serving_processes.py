"""Which processes of which gateways serve: several gateways may have one database in common."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; a gateway of an older version goes on beside it."""
    op.create_table(
        "serving",
        sa.Column("boot", sa.String(36), primary_key=True),
        sa.Column("pid", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("started", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("instance", sa.String(32), nullable=False),
        sa.Column("seen_at", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("serving")

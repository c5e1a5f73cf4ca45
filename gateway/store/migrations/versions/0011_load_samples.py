"""Processor time and memory, one row for each environment and hour."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table. Its rows go with their environment."""
    op.create_table(
        "load_samples",
        sa.Column("user", sa.String(31), primary_key=True),
        sa.Column("name", sa.String(31), primary_key=True),
        sa.Column("hour", sa.DateTime, primary_key=True),
        sa.Column("observed_seconds", sa.Float, nullable=False),
        sa.Column("cpu_seconds", sa.Float, nullable=False),
        sa.Column("memory_peak_bytes", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["user", "name"], ["environments.user", "environments.name"], ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Take the table away."""
    op.drop_table("load_samples")

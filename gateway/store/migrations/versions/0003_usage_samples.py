"""Samples of use, one row for each GPU, environment and hour."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table. Its rows outlive users and environments, so it points at neither."""
    op.create_table(
        "usage_samples",
        sa.Column("gpu_uuid", sa.String(80), primary_key=True),
        sa.Column("user", sa.String(31), primary_key=True),
        sa.Column("name", sa.String(31), primary_key=True),
        sa.Column("hour", sa.DateTime, primary_key=True),
        sa.Column("observed_seconds", sa.Float, nullable=False),
        sa.Column("busy_seconds", sa.Float, nullable=False),
        sa.Column("memory_peak_bytes", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Take the table away."""
    op.drop_table("usage_samples")

"""The size of an environment's disk."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; what is there has none."""
    op.add_column("environments", sa.Column("disk_bytes", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    """Take it away: an older version knows no disks, and finds no files of environments that have one."""
    with op.batch_alter_table("environments") as environments:
        environments.drop_column("disk_bytes")

"""Users, their keys, environments, leases and the revision counter."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "users",
        sa.Column("name", sa.String(31), primary_key=True),
        sa.Column("uid", sa.Integer, nullable=False, unique=True),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("disabled_at", sa.DateTime),
    )
    op.create_table(
        "public_keys",
        sa.Column("user", sa.String(31), sa.ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("algorithm", sa.String(64), nullable=False),
        sa.Column("bits", sa.Integer, nullable=False),
        sa.Column("line", sa.String, nullable=False),
        sa.Column("comment", sa.String, nullable=False),
        sa.Column("added_at", sa.DateTime, nullable=False),
        sa.Column("last_used_at", sa.DateTime),
    )
    op.create_table(
        "environments",
        sa.Column("user", sa.String(31), sa.ForeignKey("users.name"), primary_key=True),
        sa.Column("name", sa.String(31), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("engine", sa.String(16), nullable=False),
        sa.Column("image", sa.String, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("cpus", sa.Float, nullable=False),
        sa.Column("pids", sa.Integer, nullable=False),
        sa.Column("shm_bytes", sa.BigInteger, nullable=False),
        sa.Column("gpu_request", sa.String, nullable=False),
        sa.Column("datasets", sa.JSON, nullable=False),
        sa.Column("egress", sa.String, nullable=False),
        sa.Column("should_run", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("last_active_at", sa.DateTime),
        sa.Column("detail", sa.String, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("gpu_uuid", sa.String(80), primary_key=True),
        sa.Column("user", sa.String(31), nullable=False),
        sa.Column("name", sa.String(31), nullable=False),
        sa.Column("leased_at", sa.DateTime, nullable=False),
        sa.ForeignKeyConstraint(["user", "name"], ["environments.user", "environments.name"], ondelete="CASCADE"),
    )
    revision_table = op.create_table(
        "revision",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
    )
    op.bulk_insert(revision_table, [{"id": 1, "number": 1}])


def downgrade() -> None:
    """Before the first tables there is nothing to go back to."""
    raise NotImplementedError("there is no devgw before the first")

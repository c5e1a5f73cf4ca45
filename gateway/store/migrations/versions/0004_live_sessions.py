"""Live connections, one row each, and the wish of an administrator that one should end."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _owner() -> tuple[sa.Column[str], sa.Column[int], sa.Column[int]]:
    return (
        sa.Column("boot", sa.String(36), primary_key=True),
        sa.Column("pid", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("started", sa.BigInteger, primary_key=True, autoincrement=False),
    )


def upgrade() -> None:
    """Make the tables. Rows point at no user: one who is deleted is connected until the gateway has ended it."""
    op.create_table(
        "live_sessions",
        *_owner(),
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("user", sa.String(31), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("environment", sa.String(63), nullable=False),
        sa.Column("channels", sa.JSON, nullable=False),
        sa.Column("sent_bytes", sa.BigInteger, nullable=False),
        sa.Column("received_bytes", sa.BigInteger, nullable=False),
        sa.Column("since", sa.DateTime, nullable=False),
    )
    op.create_table(
        "kill_requests",
        *_owner(),
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("reason", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Take the tables away."""
    op.drop_table("kill_requests")
    op.drop_table("live_sessions")

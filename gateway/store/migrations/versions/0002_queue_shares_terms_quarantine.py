"""The queue, users' shares, past leases, the terms on which environments run, and GPUs taken out of use."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; leases that are held are counted from when they were given."""
    with op.batch_alter_table("leases") as leases:
        leases.add_column(sa.Column("ends_at", sa.DateTime))
        leases.add_column(sa.Column("counted_until", sa.DateTime))
    op.execute("UPDATE leases SET counted_until = leased_at")
    with op.batch_alter_table("leases") as leases:
        leases.alter_column("counted_until", existing_type=sa.DateTime(), nullable=False)
    op.create_table(
        "past_leases",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("gpu_uuid", sa.String(80), nullable=False),
        sa.Column("user", sa.String(31), nullable=False),
        sa.Column("name", sa.String(31), nullable=False),
        sa.Column("leased_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime, nullable=False),
    )
    op.create_index("ix_past_leases_ended_at", "past_leases", ["ended_at"])
    op.create_table(
        "shares",
        sa.Column("user", sa.String(31), primary_key=True),
        sa.Column("log_hours", sa.Float, nullable=False),
    )
    op.create_index("ix_shares_log_hours", "shares", ["log_hours"])
    op.create_table(
        "queue",
        sa.Column("user", sa.String(31), primary_key=True),
        sa.Column("name", sa.String(31), primary_key=True),
        sa.Column("gpu_request", sa.String, nullable=False),
        sa.Column("asked_at", sa.DateTime, nullable=False),
        sa.Column("seen_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "quarantine",
        sa.Column("gpu_uuid", sa.String(80), primary_key=True),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("since", sa.DateTime, nullable=False),
    )
    op.create_table(
        "terms",
        sa.Column("user", sa.String(31), primary_key=True),
        sa.Column("name", sa.String(31), primary_key=True),
        sa.Column("active_at", sa.DateTime),
        sa.Column("activity", sa.String, nullable=False),
        sa.Column("said", sa.String(16), nullable=False),
        sa.Column("said_of", sa.DateTime),
        sa.Column("warned_at", sa.DateTime),
        sa.Column("healed_at", sa.DateTime),
        sa.ForeignKeyConstraint(["user", "name"], ["environments.user", "environments.name"], ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Take the tables away; what they held goes with them."""
    for name in ("terms", "quarantine", "queue", "shares", "past_leases"):
        op.drop_table(name)
    with op.batch_alter_table("leases") as leases:
        leases.drop_column("ends_at")
        leases.drop_column("counted_until")

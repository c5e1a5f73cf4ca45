"""Which images there are and why, which one each channel names and named before, which one each environment runs."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; a channel that no move names is found by its name on the engine, as before."""
    op.create_table(
        "images",
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )
    op.create_table(
        "channel_moves",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("channel", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("undone_at", sa.DateTime),
        sa.Column("undone_by", sa.String, nullable=False, server_default=""),
        sa.Column("undone_reason", sa.String, nullable=False, server_default=""),
    )
    op.create_index("ix_channel_moves_channel", "channel_moves", ["channel"])
    op.add_column("environments", sa.Column("image_digest", sa.String(80), nullable=False, server_default=""))
    op.add_column("environments", sa.Column("restart_at", sa.DateTime))


def downgrade() -> None:
    """Take them away: an older version starts whatever image bears the channel's name on the engine."""
    with op.batch_alter_table("environments") as environments:
        environments.drop_column("restart_at")
        environments.drop_column("image_digest")
    op.drop_table("channel_moves")
    op.drop_table("images")

"""Moves of users between hosts, and why a user's door is shut meanwhile and afterwards."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and the two words on a user. Nobody is being moved."""
    op.add_column("users", sa.Column("move", sa.String(32), nullable=False, server_default=""))
    op.add_column("users", sa.Column("closed_because", sa.String, nullable=False, server_default=""))
    op.create_table(
        "moves",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("side", sa.String(8), nullable=False),
        sa.Column("user", sa.String(31), nullable=False),
        sa.Column("other", sa.String, nullable=False),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("begun_at", sa.DateTime, nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    op.create_index("ix_moves_user", "moves", ["user"])


def downgrade() -> None:
    """Take them away; an older version knows only that whoever was moved is disabled."""
    op.execute("UPDATE users SET disabled_at = CURRENT_TIMESTAMP WHERE closed_because <> '' AND disabled_at IS NULL")
    op.drop_index("ix_moves_user", "moves")
    op.drop_table("moves")
    op.drop_column("users", "closed_because")  # not as a batch: a table made anew would lose who points at it
    op.drop_column("users", "move")

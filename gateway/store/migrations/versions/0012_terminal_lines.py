"""Lines for terminals, so that every gateway of a site shows what the leading one says."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table. Its rows are of the last minutes."""
    op.create_table(
        "terminal_lines",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("user", sa.String(31), nullable=False),
        sa.Column("name", sa.String(31), nullable=False),
        sa.Column("line", sa.String, nullable=False),
        sa.Column("said_at", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Take the table away."""
    op.drop_table("terminal_lines")

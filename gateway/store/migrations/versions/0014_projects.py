"""Whose which number of a project quota is."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "projects",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("user", sa.String(31), nullable=False),
        sa.Column("name", sa.String(31), nullable=False),
        sa.UniqueConstraint("user", "name", name="uq_projects_user"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Take the table away: files keep their project and its size, and no number of it is given to another."""
    op.drop_table("projects")

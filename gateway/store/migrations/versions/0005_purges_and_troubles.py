"""What is meant to happen to an environment outlives the process that began it: a purge, and a failure of its care."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; a deletion that an older version left unfinished keeps the files, as it would have there."""
    op.add_column("environments", sa.Column("purges", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("environments", sa.Column("trouble", sa.String, nullable=False, server_default=""))


def downgrade() -> None:
    """Take the columns away; a purge that was begun goes on as a deletion that keeps the files."""
    with op.batch_alter_table("environments") as environments:
        environments.drop_column("purges")
        environments.drop_column("trouble")

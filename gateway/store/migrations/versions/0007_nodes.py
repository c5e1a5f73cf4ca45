"""Where an environment must be, and the nodes from which new ones are kept away."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; what is there may be on any node."""
    op.add_column("environments", sa.Column("node_request", sa.String, nullable=False, server_default=""))
    op.create_table(
        "drains",
        sa.Column("node", sa.String, primary_key=True),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("since", sa.DateTime, nullable=False),
        sa.Column("stop_at", sa.DateTime),
    )


def downgrade() -> None:
    """Take them away: an older version puts environments anywhere."""
    op.drop_table("drains")
    with op.batch_alter_table("environments") as environments:
        environments.drop_column("node_request")

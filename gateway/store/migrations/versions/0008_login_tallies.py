"""What several gateways count of failed logins and proved keys, in common."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Begin with nothing counted."""
    op.create_table(
        "login_tallies",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("banned_until", sa.Float, nullable=False),
        sa.Column("bans", sa.Integer, nullable=False),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
    )
    op.create_index("ix_login_tallies_change", "login_tallies", ["change"])


def downgrade() -> None:
    """Forget what was counted: an older version counts in files of its own."""
    op.drop_table("login_tallies")

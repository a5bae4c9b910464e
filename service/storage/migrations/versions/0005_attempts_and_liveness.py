"""Count attempts without progress apart from the fencing number; observe liveness by counters instead of times.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COUNTERS = {"runs": ("fence", "beats", "saved_step"), "workers": ("beats",)}
IDENTITIES = {"runs": ("holder", "program"), "workers": ("process",)}


def upgrade() -> None:
    """Apply the migration."""
    for table, names in COUNTERS.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.Integer(), server_default="0", nullable=False))
    for table, names in IDENTITIES.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.String(200), nullable=True))
    # Fencing numbers must not repeat.
    op.execute("UPDATE runs SET fence = attempts")
    op.drop_column("runs", "heartbeat_at")


def downgrade() -> None:
    """Revert the migration."""
    op.add_column("runs", sa.Column("heartbeat_at", sa.DateTime(), nullable=True))
    for columns in (COUNTERS, IDENTITIES):
        for table, names in columns.items():
            for name in names:
                op.drop_column(table, name)

"""Record the traffic of the active model until a canary begins.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration. Counts of durations in the former form are dropped: they did not separate sizes."""
    op.add_column("releases", sa.Column("before_canary", sa.JSON()))
    op.execute("UPDATE traffic SET latency = '{}'")


def downgrade() -> None:
    """Revert the migration."""
    op.execute("UPDATE traffic SET latency = '{}'")
    op.drop_column("releases", "before_canary")

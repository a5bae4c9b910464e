"""Drop the column `runs.lane`: there is one kind of run.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ACTIVE_RUN = sa.text("status IN ('queued', 'running')")


def upgrade() -> None:
    """Apply the migration."""
    op.drop_index("one_active_run", "runs")
    op.drop_column("runs", "lane")
    _create_index(sa.text("(1)"))


def downgrade() -> None:
    """Revert the migration."""
    op.drop_index("one_active_run", "runs")
    op.add_column("runs", sa.Column("lane", sa.String(16), server_default="retrain", nullable=False))
    _create_index("lane")


def _create_index(column: str | sa.TextClause) -> None:
    op.create_index(
        "one_active_run", "runs", [column], unique=True, sqlite_where=ACTIVE_RUN, postgresql_where=ACTIVE_RUN
    )

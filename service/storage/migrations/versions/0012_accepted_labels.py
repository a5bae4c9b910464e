"""Record which labels are accepted predictions of a model; so far, all were drawn.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.add_column("images", sa.Column("accepted_from", sa.String(64)))
    op.add_column("run_labels", sa.Column("accepted_from", sa.String(64)))
    op.add_column("pool", sa.Column("accepted", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Revert the migration."""
    op.drop_column("pool", "accepted")
    op.drop_column("run_labels", "accepted_from")
    op.drop_column("images", "accepted_from")

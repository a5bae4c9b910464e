"""Record deletions of models and of runs' files, and the operating time; count the bytes of unlabelled images.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

COUNTERS = ("unlabelled_bytes", "deleted_by_age", "deleted_by_bytes")
DELETION = (
    ("bytes", sa.BigInteger()),
    ("unused_since", sa.BigInteger()),
    ("deleted_at", sa.DateTime()),
    ("deletion_reason", sa.String(16)),
    ("deleted_by", sa.String(64)),
    ("files_deleted_at", sa.DateTime()),
)


def upgrade() -> None:
    """Apply the migration."""
    for counter in COUNTERS:
        op.add_column("pool", sa.Column(counter, sa.BigInteger(), server_default="0", nullable=False))
    op.execute(
        "UPDATE pool SET unlabelled_bytes = (SELECT coalesce(sum(bytes), 0) FROM images WHERE mask_sha256 IS NULL)"
    )
    reason = sa.Column("reason", sa.String(16), server_default="requested", nullable=False)
    op.add_column("deleted_images", reason)
    for table in ("models", "runs"):
        for name, kind in DELETION:
            op.add_column(table, sa.Column(name, kind))
    op.add_column("models", sa.Column("manifest", sa.JSON()))
    op.create_table(
        "operating_time",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("checked_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_operating_time_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_operating_time"),
    )
    op.execute("INSERT INTO operating_time (id, seconds, checked_at) VALUES (1, 0, CURRENT_TIMESTAMP)")
    op.create_table(
        "operating_hours",
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("image_sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", name="pk_operating_hours"),
    )


def downgrade() -> None:
    """Revert the migration: deleted models count as failed."""
    op.execute("UPDATE models SET state = 'failed', error = 'it was deleted' WHERE state = 'deleted'")
    op.drop_table("operating_hours")
    op.drop_table("operating_time")
    op.drop_column("models", "manifest")
    for table in ("runs", "models"):
        for name, _ in reversed(DELETION):
            op.drop_column(table, name)
    op.drop_column("deleted_images", "reason")
    for counter in reversed(COUNTERS):
        op.drop_column("pool", counter)

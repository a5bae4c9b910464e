"""Number deletions, record how a run started and in which environment, and when the schedule was last answered.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    number_deletions()
    op.add_column("runs", sa.Column("unlabelled", sa.Integer()))
    op.add_column("runs", sa.Column("repeats", sa.String(64)))
    op.add_column("runs", sa.Column("from_encoder", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("runs", sa.Column("environment", sa.JSON()))
    count_labels_of_past_runs()
    op.create_table(
        "schedule_checks",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("schedule", sa.String(200), nullable=False),
        sa.Column("checked_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schedule_checks_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_schedule_checks"),
    )


def downgrade() -> None:
    """Revert the migration."""
    op.drop_table("schedule_checks")
    for column in ("environment", "from_encoder", "repeats", "unlabelled", "deletion_sequence"):
        op.drop_column("runs", column)
    for column in ("deletion_sequence", "image_id"):
        op.drop_index(f"ix_deleted_images_{column}", "deleted_images")
    op.drop_column("deleted_images", "deletion_sequence")
    op.drop_column("pool", "deletion_sequence")


def number_deletions() -> None:
    """Number the deletions by time, and note how many each past run came after."""
    op.add_column("pool", sa.Column("deletion_sequence", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("deleted_images", sa.Column("deletion_sequence", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("runs", sa.Column("deletion_sequence", sa.BigInteger()))
    op.execute(
        "UPDATE deleted_images SET deletion_sequence = numbered.number FROM (SELECT sequence, row_number() OVER "
        "(ORDER BY deleted_at, sequence) AS number FROM deleted_images) AS numbered "
        "WHERE deleted_images.sequence = numbered.sequence"
    )
    op.execute("UPDATE pool SET deletion_sequence = (SELECT count(*) FROM deleted_images)")
    op.execute(
        "UPDATE runs SET deletion_sequence = (SELECT count(*) FROM deleted_images "
        "WHERE deleted_images.deleted_at <= runs.created_at) WHERE image_sequence IS NOT NULL"
    )
    for column in ("deletion_sequence", "image_id"):
        op.create_index(f"ix_deleted_images_{column}", "deleted_images", [column])


def count_labels_of_past_runs() -> None:
    """Note which labels past runs have learned: otherwise all would count as new."""
    op.execute(
        "UPDATE runs SET label_sequence = (SELECT coalesce(max(images.label_sequence), 0) FROM images "
        "WHERE images.labelled_at <= runs.created_at) WHERE image_sequence IS NOT NULL "
        "AND coalesce(label_sequence, 0) = 0"
    )

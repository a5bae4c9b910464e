"""Add versions of the class list; the first one has the classes of the active model, and so have all labels.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# The version that serves; if none can, the one that served last.
FIRST_LIST = """
INSERT INTO class_lists (version, created_at, model, changes, merged)
SELECT 1, CURRENT_TIMESTAMP, activations.version, '{}', '{}'
FROM activations JOIN models ON models.version = activations.version
ORDER BY CASE WHEN models.state IN ('failed', 'withdrawn', 'deleted') THEN 1 ELSE 0 END, activations.id DESC
LIMIT 1
"""


def upgrade() -> None:
    """Apply the migration."""
    op.create_table(
        "class_lists",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("key_name", sa.String(64)),
        sa.Column("model", sa.String(64)),
        sa.Column("ignore_index", sa.Integer()),
        sa.Column("classes", sa.JSON()),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("merged", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_class_lists"),
    )
    op.create_table(
        "label_counts",
        sa.Column("classes_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("split", sa.String(16), nullable=False),
        sa.Column("class_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.Column("pixels", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("classes_version", "split", "class_id", name="pk_label_counts"),
    )
    for table in ("images", "models", "runs", "run_labels"):
        op.add_column(table, sa.Column("classes_version", sa.Integer()))
    op.add_column("images", sa.Column("class_pixels", sa.JSON()))
    uncounted = sa.text("mask_sha256 IS NOT NULL AND class_pixels IS NULL")
    op.create_index("ix_images_uncounted", "images", ["sequence"], sqlite_where=uncounted, postgresql_where=uncounted)
    op.execute(FIRST_LIST)
    op.execute("UPDATE images SET classes_version = 1 WHERE mask_sha256 IS NOT NULL")
    op.execute("UPDATE run_labels SET classes_version = 1")
    op.execute("UPDATE runs SET classes_version = 1 WHERE image_sequence IS NOT NULL")


def downgrade() -> None:
    """Revert the migration: masks keep the ids of the list under which they were made."""
    op.drop_index("ix_images_uncounted", "images")
    op.drop_column("images", "class_pixels")
    for table in ("run_labels", "runs", "models", "images"):
        op.drop_column(table, "classes_version")
    op.drop_table("label_counts")
    op.drop_table("class_lists")

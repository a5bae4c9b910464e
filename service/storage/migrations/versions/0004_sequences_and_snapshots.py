"""Number images and labels, count them in one row, and record the masks of a run's snapshot.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UNLABELLED, LABELLED = sa.text("mask_sha256 IS NULL"), sa.text("mask_sha256 IS NOT NULL")
PENDING = sa.text("completed_at IS NULL")


def upgrade() -> None:
    """Apply the migration."""
    number_images()
    count_images()
    number_runs()
    snapshot_labels()
    create_deleted_images()


def downgrade() -> None:
    """Revert the migration: snapshots of later runs are lost."""
    create_run_images()
    op.drop_table("deleted_images")
    op.drop_table("run_labels")
    op.drop_table("pool")
    op.create_index("ix_runs_created_at", "runs", ["created_at"])
    op.drop_index("ix_runs_number", "runs")
    for column in ("image_sequence", "label_sequence", "number"):
        op.drop_column("runs", column)
    for index in ("sequence", "mask_sha256", "label_sequence", "labelled", "unlabelled"):
        op.drop_index(f"ix_images_{index}", "images")
    for column in ("sequence", "label_sequence", "group_name"):
        op.drop_column("images", column)
    op.create_index("ix_images_created_at_id", "images", ["created_at", "id"])


def number_images() -> None:
    """Number the images by age, and their labels."""
    op.add_column("images", sa.Column("sequence", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("images", sa.Column("label_sequence", sa.BigInteger()))
    op.add_column("images", sa.Column("group_name", sa.String(200)))
    number("images", "sequence", "created_at", "true")
    number("images", "label_sequence", "labelled_at", "mask_sha256 IS NOT NULL")
    op.drop_index("ix_images_created_at_id", "images")
    op.create_index("ix_images_sequence", "images", ["sequence"], unique=True)
    for name, column, where in (
        ("unlabelled", "sequence", UNLABELLED),
        ("labelled", "sequence", LABELLED),
        ("label_sequence", "label_sequence", LABELLED),
        ("mask_sha256", "mask_sha256", LABELLED),
    ):
        op.create_index(f"ix_images_{name}", "images", [column], sqlite_where=where, postgresql_where=where)


def number(table: str, column: str, time: str, where: str) -> None:
    """Write 1, 2, ... to a column, in the order of a time."""
    op.execute(
        f"UPDATE {table} SET {column} = numbered.number FROM (SELECT id, row_number() OVER (ORDER BY {time}, id) "  # noqa: S608 - constants
        f"AS number FROM {table} WHERE {where}) AS numbered WHERE {table}.id = numbered.id"
    )


def number_runs() -> None:
    """Number the runs by age."""
    op.add_column("runs", sa.Column("number", sa.BigInteger(), server_default="0", nullable=False))
    number("runs", "number", "created_at", "true")
    op.drop_index("ix_runs_created_at", "runs")
    op.create_index("ix_runs_number", "runs", ["number"], unique=True)


def count_images() -> None:
    """Create the row of counters."""
    op.create_table(
        "pool",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image_sequence", sa.BigInteger(), nullable=False),
        sa.Column("label_sequence", sa.BigInteger(), nullable=False),
        sa.Column("unlabelled", sa.Integer(), nullable=False),
        sa.Column("labelled", sa.Integer(), nullable=False),
        sa.Column("val", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_pool_one_row")),
        sa.PrimaryKeyConstraint("id", name="pk_pool"),
    )
    op.execute(
        "INSERT INTO pool SELECT 1, coalesce(max(sequence), 0), coalesce(max(label_sequence), 0), "
        "count(*) - count(split), count(*) FILTER (WHERE split = 'labelled'), count(*) FILTER (WHERE split = 'val'), "
        "coalesce(sum(bytes), 0) FROM images"
    )


def snapshot_labels() -> None:
    """Replace the snapshots of past runs, a row an image, by a sequence and the labels. Active runs take a new one."""
    for column in ("image_sequence", "label_sequence"):
        op.add_column("runs", sa.Column(column, sa.BigInteger()))
    op.create_table(
        "run_labels",
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("image_id", sa.String(64), nullable=False),
        sa.Column("mask_sha256", sa.String(64)),
        sa.Column("split", sa.String(16), nullable=False),
        sa.Column("group_name", sa.String(200)),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_labels_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "image_id", name="pk_run_labels"),
    )
    for column in ("image_id", "mask_sha256"):
        op.create_index(f"ix_run_labels_{column}", "run_labels", [column])
    ended = "SELECT id FROM runs WHERE status NOT IN ('queued', 'running')"
    op.execute(
        "INSERT INTO run_labels (run_id, image_id, split) SELECT run_id, image_id, role FROM run_images "  # noqa: S608 - constants
        f"WHERE role != 'unlabelled' AND run_id IN ({ended})"
    )
    op.execute(
        "UPDATE runs SET label_sequence = 0, image_sequence = (SELECT coalesce(max(images.sequence), 0) "  # noqa: S608 - constants
        "FROM run_images JOIN images ON images.id = run_images.image_id WHERE run_images.run_id = runs.id) "
        f"WHERE id IN ({ended})"
    )
    op.drop_table("run_images")


def create_deleted_images() -> None:
    """Create the table of deleted images."""
    op.create_table(
        "deleted_images",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("image_id", sa.String(64), nullable=False),
        sa.Column("mask_sha256", sa.String(64)),
        sa.Column("deleted_at", sa.DateTime(), nullable=False),
        sa.Column("completed_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("sequence", name="pk_deleted_images"),
    )
    op.create_index(
        "ix_deleted_images_pending", "deleted_images", ["sequence"], sqlite_where=PENDING, postgresql_where=PENDING
    )


def create_run_images() -> None:
    """Create the former table of snapshots, without rows."""
    op.create_table(
        "run_images",
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("image_id", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_images_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "image_id", name="pk_run_images"),
    )
    op.create_index("ix_run_images_image_id", "run_images", ["image_id"])

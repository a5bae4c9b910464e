"""The first schema.

Revision ID: 0001
Revises: none
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ACTIVE_RUN = sa.text("status IN ('queued', 'running')")


def upgrade() -> None:
    """Apply the migration."""
    create_images()
    create_models()
    create_runs()
    create_workers()


def downgrade() -> None:
    """Revert the migration."""
    for table in ("workers", "run_events", "run_images", "runs", "activations", "models", "images"):
        op.drop_table(table)


def create_images() -> None:
    """Create the tables of the pool."""
    op.create_table(
        "images",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("media_type", sa.String(32), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("mask_sha256", sa.String(64)),
        sa.Column("split", sa.String(16)),
        sa.Column("labelled_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
    )
    op.create_index("ix_images_created_at_id", "images", ["created_at", "id"])


def create_models() -> None:
    """Create the tables of models and activations."""
    op.create_table(
        "models",
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("path", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("parent", sa.String(64)),
        sa.Column("run_id", sa.String(64)),
        sa.Column("miou", sa.Double()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_models"),
    )
    op.create_table(
        "activations",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["models.version"], name="fk_activations_version_models"),
        sa.PrimaryKeyConstraint("id", name="pk_activations"),
    )


def create_runs() -> None:
    """Create the tables of runs, snapshots and events."""
    op.create_table(
        "runs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("lane", sa.String(16), server_default="retrain", nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime()),
        sa.Column("finished_at", sa.DateTime()),
        sa.Column("heartbeat_at", sa.DateTime()),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("phase", sa.String(32)),
        sa.Column("step", sa.Integer()),
        sa.Column("steps", sa.Integer()),
        sa.Column("loss", sa.Double()),
        sa.Column("error", sa.Text()),
        sa.Column("base_version", sa.String(64)),
        sa.Column("candidate_version", sa.String(64)),
        sa.Column("miou_before", sa.Double()),
        sa.Column("miou_after", sa.Double()),
        sa.Column("report", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_created_at", "runs", ["created_at"])
    op.create_index(
        "one_active_run", "runs", ["lane"], unique=True, sqlite_where=ACTIVE_RUN, postgresql_where=ACTIVE_RUN
    )
    op.create_table(
        "run_images",
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("image_id", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_images_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "image_id", name="pk_run_images"),
    )
    op.create_index("ix_run_images_image_id", "run_images", ["image_id"])
    op.create_table(
        "run_events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_events_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_run_events"),
    )
    op.create_index("ix_run_events_run_id", "run_events", ["run_id"])


def create_workers() -> None:
    """Create the table of workers."""
    op.create_table(
        "workers",
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.Column("can_train", sa.Boolean(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )

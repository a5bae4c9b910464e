"""Releases, traffic and webhook messages; runs end judged.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.add_column("activations", sa.Column("key_name", sa.String(64)))
    op.execute("UPDATE runs SET status = 'judged' WHERE status IN ('succeeded', 'rejected')")
    create_releases()
    create_traffic()
    create_webhook_messages()


def downgrade() -> None:
    """Revert the migration: why candidates were released or not is lost, except in the verdicts of the runs."""
    op.execute(
        "UPDATE runs SET status = CASE WHEN candidate_version IN (SELECT version FROM activations) THEN 'succeeded' "
        "ELSE 'rejected' END WHERE status = 'judged'"
    )
    op.execute("UPDATE models SET state = 'rejected' WHERE state = 'withdrawn'")
    op.drop_table("webhook_messages")
    op.drop_table("traffic")
    op.drop_table("releases")
    op.drop_column("activations", "key_name")


def create_releases() -> None:
    """Create the table of releases."""
    op.create_table(
        "releases",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("verdict", sa.JSON(), nullable=False),
        sa.Column("base_version", sa.String(64)),
        sa.Column("judged_against", sa.Integer()),
        sa.Column("activation_id", sa.Integer()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.String(64)),
        sa.Column("judged_at", sa.DateTime(), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.Column("watched", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("shadow", sa.JSON()),
        sa.UniqueConstraint("run_id", name="uq_releases_run_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_releases_run_id_runs"),
        sa.ForeignKeyConstraint(["version"], ["models.version"], name="fk_releases_version_models"),
        sa.ForeignKeyConstraint(["judged_against"], ["activations.id"], name="fk_releases_judged_against_activations"),
        sa.ForeignKeyConstraint(["activation_id"], ["activations.id"], name="fk_releases_activation_id_activations"),
        sa.PrimaryKeyConstraint("id", name="pk_releases"),
    )
    op.create_index("ix_releases_state", "releases", ["state"])


def create_traffic() -> None:
    """Create the table of inferences by model."""
    op.create_table(
        "traffic",
        sa.Column("activation_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("latency", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["activation_id"], ["activations.id"], name="fk_traffic_activation_id_activations"),
        sa.ForeignKeyConstraint(["version"], ["models.version"], name="fk_traffic_version_models"),
        sa.PrimaryKeyConstraint("activation_id", "version", name="pk_traffic"),
    )


def create_webhook_messages() -> None:
    """Create the table of messages for the webhook."""
    op.create_table(
        "webhook_messages",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_messages"),
    )
    op.create_index("ix_webhook_messages_due_at", "webhook_messages", ["due_at"])

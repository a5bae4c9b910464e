"""Record near-duplicates, what models say about the images, and drift.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

DUPLICATE = sa.text("duplicate_of IS NOT NULL")


def upgrade() -> None:
    """Apply the migration."""
    op.add_column("images", sa.Column("duplicate_of", sa.String(64)))
    op.create_index(
        "ix_images_duplicate_of", "images", ["duplicate_of"], sqlite_where=DUPLICATE, postgresql_where=DUPLICATE
    )
    create_analysed_models()
    create_analyses()
    create_analysed_days()
    create_drift_tests()


def downgrade() -> None:
    """Revert the migration; the files of embeddings stay."""
    for table in ("drift_tests", "analysed_days", "analyses", "analysed_models"):
        op.drop_table(table)
    op.drop_index("ix_images_duplicate_of", "images")
    op.drop_column("images", "duplicate_of")


def of_a_model(table: str) -> sa.ForeignKeyConstraint:
    """Refer to the version of a row."""
    return sa.ForeignKeyConstraint(["version"], ["models.version"], name=f"fk_{table}_version_models")


def create_analysed_models() -> None:
    """Create the table of models that analyse images."""
    op.create_table(
        "analysed_models",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("dimensions", sa.Integer()),
        sa.Column("oldest", sa.BigInteger(), nullable=False),
        sa.Column("newest", sa.BigInteger(), nullable=False),
        sa.Column("duplicate_threshold", sa.Double()),
        of_a_model("analysed_models"),
        sa.PrimaryKeyConstraint("id", name="pk_analysed_models"),
    )
    op.create_index("ix_analysed_models_version", "analysed_models", ["version"], unique=True)


def create_analyses() -> None:
    """Create the table of analyses."""
    op.create_table(
        "analyses",
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("uncertainty", sa.Double(), nullable=False),
        sa.Column("areas", sa.JSON(), nullable=False),
        of_a_model("analyses"),
        sa.PrimaryKeyConstraint("version", "sequence", name="pk_analyses"),
    )
    op.create_index("ix_analyses_sequence", "analyses", ["sequence"])


def create_analysed_days() -> None:
    """Create the table of sums by day."""
    op.create_table(
        "analysed_days",
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("uncertainty", sa.Double(), nullable=False),
        sa.Column("areas", sa.JSON(), nullable=False),
        of_a_model("analysed_days"),
        sa.PrimaryKeyConstraint("version", "day", name="pk_analysed_days"),
    )


def create_drift_tests() -> None:
    """Create the table of drift tests."""
    op.create_table(
        "drift_tests",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("newest", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("reference_images", sa.Integer(), nullable=False),
        sa.Column("mmd2", sa.Double(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("alarm", sa.Boolean(), nullable=False),
        of_a_model("drift_tests"),
        sa.PrimaryKeyConstraint("id", name="pk_drift_tests"),
    )
    op.create_index("ix_drift_tests_version", "drift_tests", ["version"])

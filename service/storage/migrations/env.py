"""Alembic environment: run the migrations on the connection that `service.storage.migrate` opened."""

from alembic import context

import service.storage.analysis_tables  # noqa: F401 - adds its tables to Base
from service.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite cannot alter columns.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

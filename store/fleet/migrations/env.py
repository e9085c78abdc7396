"""Run by alembic: bring the connection that `store.fleet.migration` passes to a revision, in its transaction."""

from alembic import context

from store.fleet.tables import metadata

connection = context.config.attributes["connection"]
# Batch mode because SQLite's ALTER TABLE can do little: alembic then copies the table.
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()

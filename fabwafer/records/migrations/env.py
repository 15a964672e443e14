"""Run the migrations on the connection that `fabwafer.records.migrate` opened and locked."""

from alembic import context

from fabwafer.records.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

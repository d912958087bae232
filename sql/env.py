"""Alembic's entry: revisions on the connection that ``migrate`` opened, or as SQL text (``make schema``)."""

from alembic import context

from server.database.tables import metadata

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, target_metadata=metadata)
else:
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)

with context.begin_transaction():
    context.run_migrations()

"""Alembic's entry: it runs the migrations in the transaction that `Store.migrate` opened."""

from alembic import context

from pushforward.service.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()

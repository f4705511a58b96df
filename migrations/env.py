"""Alembic's environment: runs on the connection and in the transaction of the caller."""

from alembic import context

from registry.catalog.migrate import connection_of
from registry.catalog.schema import METADATA

context.configure(
    connection=connection_of(context.config),
    target_metadata=METADATA,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()

"""Alembic runs this: the migrations, on the connection and in the transaction that `kit/migrations.py` opened."""

from alembic import context

from foretell.domain.migrations.schema import metadata

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    version_table=attributes["version_table"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

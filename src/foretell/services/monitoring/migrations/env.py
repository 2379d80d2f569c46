"""Alembic's environment: runs the migrations in the transaction that `kit/migrations.py` opened."""

from alembic import context

from foretell.services.monitoring.storage.tables import monitoring

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    version_table=attributes["version_table"],
    target_metadata=monitoring,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

"""Storage settings for tables that are a queue with a long history."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    # Every prediction leaves a dead row. By default a vacuum runs after a fifth of the table: two million dead
    # rows with ten million predictions. A vacuum reads all indexes, so it must not run after every few thousand.
    op.execute(
        "ALTER TABLE predictions SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 50000, "
        "autovacuum_vacuum_cost_limit = 1000, autovacuum_analyze_scale_factor = 0.05)"
    )
    # The ledger has no dead rows: it only needs freezing, in small steps.
    op.execute("ALTER TABLE ledger SET (autovacuum_vacuum_insert_scale_factor = 0.05)")

"""Storage settings for tables that are a queue with a long history behind it."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    # Every prediction leaves a dead row behind. By default those of a fifth of the table would wait to be vacuumed, two
    # million with ten million behind them. A vacuum reads all indexes, so it must not follow on every few thousand.
    op.execute(
        "ALTER TABLE predictions SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 50000, "
        "autovacuum_vacuum_cost_limit = 1000, autovacuum_analyze_scale_factor = 0.05)"
    )
    # Nothing in the ledger ever dies: what is left to do is to freeze it, a little at a time.
    op.execute("ALTER TABLE ledger SET (autovacuum_vacuum_insert_scale_factor = 0.05)")

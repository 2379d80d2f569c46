"""On SQLite, rows of ledger and journal can't be replaced either: REPLACE removes them without delete triggers."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

#: Each row that an insert could replace, by the terms of its index.
_LEDGER = (
    "EXISTS (SELECT 1 FROM ledger WHERE id = NEW.id) "
    "OR EXISTS (SELECT 1 FROM ledger WHERE reference = NEW.reference) "
    "OR NEW.kind = 'hold' "
    "AND EXISTS (SELECT 1 FROM ledger WHERE prediction_id = NEW.prediction_id AND kind = 'hold') "
    "OR NEW.kind IN ('capture', 'release') "
    "AND EXISTS (SELECT 1 FROM ledger WHERE prediction_id = NEW.prediction_id AND kind IN ('capture', 'release'))"
)
_JOURNAL = "EXISTS (SELECT 1 FROM journal WHERE id = NEW.id)"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    for table, replaces in (("ledger", _LEDGER), ("journal", _JOURNAL)):
        op.execute(
            f"CREATE TRIGGER {table}_refuses_replace BEFORE INSERT ON {table} WHEN {replaces} "
            f"BEGIN SELECT RAISE(ABORT, 'A row of the {table} is never changed or removed.'); END"
        )

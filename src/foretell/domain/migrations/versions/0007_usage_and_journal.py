"""Usage of accounts by day and model, and the journal of operators' actions."""

import sqlalchemy as sa
from alembic import op

from foretell.kit.database import Moment

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_Counted = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "usage_days",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("succeeded", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("canceled", sa.BigInteger, nullable=False),
        sa.Column("credits", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "day", "model", name=op.f("pk_usage_days")),
    )
    op.create_table(
        "usage_progress",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("ledger_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_progress")),
        sa.CheckConstraint("id = 1", name=op.f("ck_usage_progress_one_row")),
    )
    op.create_table(
        "journal",
        sa.Column("id", _Counted, autoincrement=True, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("operator_id", sa.Uuid),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("act", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal")),
    )
    op.create_index(op.f("ix_journal_subject_id"), "journal", ["subject", "id"])
    _make_journal_immutable()


def _make_journal_immutable() -> None:
    refusal = "A row of the journal is never changed or removed."
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change_of_journal() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{refusal}' USING ERRCODE = 'restrict_violation'; END $$"
        )
        op.execute(
            "CREATE TRIGGER journal_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON journal "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_journal()"
        )
    else:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER journal_refuses_{change.lower()} BEFORE {change} ON journal "
                f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
            )

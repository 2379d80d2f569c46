"""The first tables: accounts, credits, predictions."""

import sqlalchemy as sa
from alembic import op

from foretell.kit.database import Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_accounts()
    _create_credits()
    _create_predictions()
    _make_ledger_immutable()


def _create_accounts() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("username_key", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False, server_default="user"),
        sa.Column("active", sa.Boolean, nullable=False, server_default="1"),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("username_key", name=op.f("uq_users_username_key")),
        sa.CheckConstraint("role IN ('user', 'operator')", name=op.f("ck_users_role")),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("family_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("used_at", Moment),
        sa.Column("revoked_at", Moment),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refresh_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_refresh_tokens_token_hash")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_refresh_tokens_user_id_users")),
    )
    op.create_index(op.f("ix_refresh_tokens_family_id"), "refresh_tokens", ["family_id"])
    op.create_index(op.f("ix_refresh_tokens_user_id"), "refresh_tokens", ["user_id"])
    op.create_index(op.f("ix_refresh_tokens_expires_at"), "refresh_tokens", ["expires_at"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("last_used_at", Moment),
        sa.Column("revoked_at", Moment),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_keys_user_id_users")),
    )
    op.create_index(op.f("ix_api_keys_user_id_id"), "api_keys", ["user_id", "id"])


def _create_credits() -> None:
    op.create_table(
        "wallets",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("available", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("held", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_wallets")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_wallets_user_id_users")),
        sa.CheckConstraint("available >= 0", name=op.f("ck_wallets_available_not_negative")),
        sa.CheckConstraint("held >= 0", name=op.f("ck_wallets_held_not_negative")),
        # The same few rows are updated all the time. With free space on the page, updates stay there (HOT) and
        # do not change the index.
        postgresql_with={"fillfactor": 10},
    )
    kinds = "'grant', 'top_up', 'refund', 'adjustment', 'hold', 'capture', 'release'"
    op.create_table(
        "ledger",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("prediction_id", sa.Uuid),
        sa.Column("reference", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger")),
        sa.CheckConstraint(f"kind IN ({kinds})", name=op.f("ck_ledger_kind")),
        sa.CheckConstraint("amount >= 0 OR kind = 'adjustment'", name=op.f("ck_ledger_amount_not_negative")),
    )
    op.create_index(op.f("ix_ledger_user_id_id"), "ledger", ["user_id", "id"])
    _create_partial_index("uq_ledger_hold", "ledger", ["prediction_id"], "kind = 'hold'", unique=True)
    _create_partial_index(
        "uq_ledger_capture_or_release", "ledger", ["prediction_id"], "kind IN ('capture', 'release')", unique=True
    )
    _create_partial_index("uq_ledger_reference", "ledger", ["reference"], "reference IS NOT NULL", unique=True)


def _create_predictions() -> None:
    # On SQLite, a column declared JSON would convert a single number to another notation.
    verbatim = sa.JSON().with_variant(sa.Text, "sqlite")
    op.create_table(
        "predictions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("pool", sa.Text),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("input", verbatim, nullable=False),
        sa.Column("price_credits", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("request_hash", sa.LargeBinary),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("published_at", Moment),
        sa.Column("started_at", Moment),
        sa.Column("finished_at", Moment),
        sa.Column("worker_id", sa.Text),
        sa.Column("output", verbatim),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_predictions")),
        sa.CheckConstraint(
            "status IN ('queued', 'succeeded', 'failed', 'canceled')", name=op.f("ck_predictions_status")
        ),
        sa.CheckConstraint("price_credits >= 0", name=op.f("ck_predictions_price_not_negative")),
        sa.CheckConstraint(
            "(status = 'queued') = (finished_at IS NULL)", name=op.f("ck_predictions_finished_when_ended")
        ),
        sa.CheckConstraint(
            "(status = 'succeeded') = (output IS NOT NULL)", name=op.f("ck_predictions_output_when_succeeded")
        ),
        sa.CheckConstraint(
            "(status = 'failed') = (error_code IS NOT NULL)", name=op.f("ck_predictions_error_when_failed")
        ),
    )
    op.create_index(op.f("ix_predictions_user_id_id"), "predictions", ["user_id", "id"])
    _create_partial_index("ix_predictions_queued", "predictions", ["id"], "status = 'queued'")
    _create_partial_index(
        "ix_predictions_exceptional",
        "predictions",
        ["user_id", "status", "id"],
        "status IN ('failed', 'canceled')",
    )
    _create_partial_index(
        "uq_predictions_idempotency_key",
        "predictions",
        ["user_id", "idempotency_key"],
        "idempotency_key IS NOT NULL",
        unique=True,
    )


def _create_partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(op.f(name), table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


def _make_ledger_immutable() -> None:
    refusal = "A row of the ledger is never changed or removed: write a movement that makes up for it."
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change_of_ledger() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{refusal}' USING ERRCODE = 'restrict_violation'; END $$"
        )
        op.execute(
            "CREATE TRIGGER ledger_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_ledger()"
        )
    else:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER ledger_refuses_{change.lower()} BEFORE {change} ON ledger "
                f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
            )

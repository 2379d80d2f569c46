"""Notifications: events, endpoints, attempts; columns for receivers in wallets, and for a webhook in predictions."""

import sqlalchemy as sa
from alembic import op

from foretell.kit.database import Moment

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_Counted = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    # Constant defaults are not written to each row, so these are fast on a large table.
    op.add_column("wallets", sa.Column("listening", sa.Boolean, nullable=False, server_default="0"))
    op.add_column("wallets", sa.Column("last_event", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("wallets", sa.Column("low_threshold", sa.BigInteger))
    op.add_column("predictions", sa.Column("webhook", sa.Text))
    _create_events()
    _create_endpoints()
    _create_deliveries()


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("data", sa.Text),
        sa.Column("endpoint_id", sa.Uuid),
        sa.Column("webhook", sa.Text),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "sequence", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_created_at"), "events", ["created_at"])
    op.create_table(
        "event_wakes",
        sa.Column("id", _Counted, autoincrement=True, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("after", sa.BigInteger, nullable=False),
        sa.Column("upto", sa.BigInteger, nullable=False),
        sa.Column("webhooks", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_wakes")),
    )
    op.create_table(
        "listeners",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("asked_at", Moment),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("previous_secrets", sa.Text),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_listeners")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_listeners_user_id_users")),
    )


def _create_endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("url", sa.Text),
        sa.Column("url_hash", sa.LargeBinary),
        sa.Column("chat_id", sa.BigInteger),
        sa.Column("types", sa.Text),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("previous_secrets", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("disabled_reason", sa.Text),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("last_event", sa.BigInteger, nullable=False),
        sa.Column("again", sa.Text),
        sa.Column("due_at", Moment),
        sa.Column("leased_by", sa.Uuid),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failing_since", Moment),
        sa.Column("head_since", Moment),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_endpoints_user_id_users")),
        sa.CheckConstraint("kind IN ('webhook', 'telegram', 'once')", name=op.f("ck_endpoints_kind")),
        sa.CheckConstraint("state IN ('enabled', 'paused', 'disabled')", name=op.f("ck_endpoints_state")),
    )
    op.create_index(op.f("ix_endpoints_user_id_id"), "endpoints", ["user_id", "id"])
    _create_partial_index("ix_endpoints_due", ["due_at"], "due_at IS NOT NULL")
    _create_partial_index("uq_endpoints_once", ["user_id", "url_hash"], "kind = 'once'", unique=True)
    _create_partial_index("uq_endpoints_chat", ["chat_id"], "kind = 'telegram'", unique=True)


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", _Counted, autoincrement=True, nullable=False),
        sa.Column("endpoint_id", sa.Uuid, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("status_code", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.CheckConstraint("outcome IN ('delivered', 'failed', 'given_up')", name=op.f("ck_deliveries_outcome")),
    )
    op.create_index(op.f("ix_deliveries_endpoint_id_id"), "deliveries", ["endpoint_id", "id"])


def _create_partial_index(name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(op.f(name), "endpoints", columns, unique=unique, postgresql_where=condition, sqlite_where=condition)

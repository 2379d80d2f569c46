"""Telegram: the chats of accounts, the codes that link them, the bot's name, and payments in Stars."""

import sqlalchemy as sa
from alembic import op

from foretell.kit.database import Moment

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "telegram_chats",
        sa.Column("chat_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("user_id", sa.Uuid),
        sa.Column("own_user_id", sa.Uuid),
        sa.Column("name", sa.Text),
        sa.Column("linked_at", Moment),
        sa.PrimaryKeyConstraint("chat_id", name=op.f("pk_telegram_chats")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_telegram_chats_user_id_users")),
        sa.ForeignKeyConstraint(["own_user_id"], ["users.id"], name=op.f("fk_telegram_chats_own_user_id_users")),
    )
    op.create_index(op.f("ix_telegram_chats_user_id"), "telegram_chats", ["user_id"])
    op.create_table(
        "telegram_codes",
        sa.Column("code_hash", sa.LargeBinary, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("used_by_chat_id", sa.BigInteger),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_telegram_codes")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_telegram_codes_user_id_users")),
    )
    op.create_index(op.f("ix_telegram_codes_user_id"), "telegram_codes", ["user_id"])
    op.create_table(
        "telegram_bot",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_telegram_bot")),
        sa.CheckConstraint("id = 1", name=op.f("ck_telegram_bot_id")),
    )
    op.create_table(
        "telegram_payments",
        sa.Column("charge_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("chat_id", sa.BigInteger, nullable=False),
        sa.Column("stars", sa.BigInteger, nullable=False),
        sa.Column("credits", sa.BigInteger, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("refunded_at", Moment),
        sa.Column("refunded_credits", sa.BigInteger),
        sa.PrimaryKeyConstraint("charge_id", name=op.f("pk_telegram_payments")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_telegram_payments_user_id_users")),
    )
    op.create_index(op.f("ix_telegram_payments_user_id"), "telegram_payments", ["user_id"])

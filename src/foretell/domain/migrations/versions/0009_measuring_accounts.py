"""Marks the account of `foretell bench`, whose spending does not count as revenue."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("measuring", sa.Boolean, nullable=False, server_default="0"))
    op.create_index(
        op.f("ix_users_measuring"),
        "users",
        ["id"],
        postgresql_where=sa.text("measuring"),
        sqlite_where=sa.text("measuring = 1"),
    )

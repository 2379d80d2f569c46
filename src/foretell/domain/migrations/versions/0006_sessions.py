"""Sessions of browsers, settings of the page, and the time from which access tokens are valid."""

import sqlalchemy as sa
from alembic import op

from foretell.kit.database import Moment

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("language", sa.Text))
    op.add_column("users", sa.Column("theme", sa.Text))
    op.add_column("users", sa.Column("tokens_from", Moment))
    op.add_column("users", sa.Column("closed_at", Moment))
    recent = sa.text("tokens_from IS NOT NULL")
    op.create_index(
        op.f("ix_users_tokens_from"), "users", ["tokens_from"], postgresql_where=recent, sqlite_where=recent
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("last_used_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("user_agent", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sessions_token_hash")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sessions_user_id_users")),
    )
    op.create_index(op.f("ix_sessions_user_id_id"), "sessions", ["user_id", "id"])
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"])

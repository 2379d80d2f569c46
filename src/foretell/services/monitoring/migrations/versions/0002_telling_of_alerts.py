"""Notifications of alerts, and silences."""

import sqlalchemy as sa
from alembic import op

from foretell.kit.database import Moment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alerts", sa.Column("reason", sa.Text))
    op.add_column("alerts", sa.Column("texts", sa.Text))
    op.create_table(
        "told",
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("alert_id", sa.Text, nullable=False),
        sa.Column("fires", sa.Boolean, nullable=False),
        sa.Column("since", Moment),
        sa.Column("changes", sa.Integer, nullable=False),
        sa.Column("changed_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("rule", "subject", name=op.f("pk_told")),
    )
    op.create_table(
        "silences",
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("until", Moment, nullable=False),
        sa.PrimaryKeyConstraint("rule", "subject", name=op.f("pk_silences")),
    )

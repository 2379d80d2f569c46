"""The revenue of each model and day, kept for longer than snapshots."""

import sqlalchemy as sa
from alembic import op

from foretell.kit.database import Moment

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "revenue",
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("credits", sa.BigInteger, nullable=False),
        sa.Column("predictions", sa.BigInteger, nullable=False),
        sa.Column("as_of", Moment, nullable=False),
        sa.PrimaryKeyConstraint("day", "model", name=op.f("pk_revenue")),
    )

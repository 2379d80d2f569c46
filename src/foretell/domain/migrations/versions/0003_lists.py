"""Indexes for the lists of a user: ended predictions by status and model, and queued ones separately."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_partial_index("ix_predictions_ended", ["user_id", "status", "model", "id"], "status <> 'queued'")
    _create_partial_index("ix_predictions_queued_of_user", ["user_id", "id"], "coalesce(status, '') = 'queued'")
    op.drop_index(op.f("ix_predictions_exceptional"), "predictions")
    op.drop_index(op.f("ix_predictions_user_id_id"), "predictions")


def _create_partial_index(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(op.f(name), "predictions", columns, postgresql_where=condition, sqlite_where=condition)

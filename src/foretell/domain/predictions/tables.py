"""The table of predictions, which is its own outbox: what is queued and unmarked has yet to be published."""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)

from foretell.kit.database import Moment, metadata

# Kept to the letter as it was sent. On SQLite as text: a column declared JSON would turn a lone number into its own
# idea of that number.
_Verbatim = JSON(none_as_null=True).with_variant(Text(), "sqlite")

_QUEUED = text("status = 'queued'")
_HAS_KEY = text("idempotency_key IS NOT NULL")
_ENDED = text("status <> 'queued'")
# The same as _QUEUED in words that PostgreSQL takes for something else: statements on what one user has queued must not
# go through what everybody has, nor the others through the users, when statistics say that both are next to nothing.
_QUEUED_OF_USER = text("coalesce(status, '') = 'queued'")

predictions = Table(
    "predictions",
    metadata,
    #: UUID version 7: the newest has the highest, so the history pages by it.
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    #: Pool of workers that takes it; NULL for the common one.
    Column("pool", Text),
    Column("stage", Text, nullable=False),
    #: As the caller sent it, to the letter.
    Column("input", _Verbatim, nullable=False),
    Column("price_credits", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("idempotency_key", Text),
    #: BLAKE2b of the request, kept with the key to tell a repetition from another request.
    Column("request_hash", LargeBinary),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("published_at", Moment),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("worker_id", Text),
    Column("output", _Verbatim),
    Column("error_code", Text),
    Column("error_message", Text),
    #: Where its end is to be told, besides to whoever hears of all ends.
    Column("webhook", Text),
    CheckConstraint("status IN ('queued', 'succeeded', 'failed', 'canceled')", name="status"),
    CheckConstraint("price_credits >= 0", name="price_not_negative"),
    CheckConstraint("(status = 'queued') = (finished_at IS NULL)", name="finished_when_ended"),
    CheckConstraint("(status = 'succeeded') = (output IS NOT NULL)", name="output_when_succeeded"),
    CheckConstraint("(status = 'failed') = (error_code IS NOT NULL)", name="error_when_failed"),
    # The lists of a user (pages.py). What is queued stands apart: it leaves its index soon.
    Index("ix_predictions_ended", "user_id", "status", "model", "id", postgresql_where=_ENDED, sqlite_where=_ENDED),
    Index(
        "ix_predictions_queued_of_user",
        "user_id",
        "id",
        postgresql_where=_QUEUED_OF_USER,
        sqlite_where=_QUEUED_OF_USER,
    ),
    # The sweeps look only at what is queued.
    Index("ix_predictions_queued", "id", postgresql_where=_QUEUED, sqlite_where=_QUEUED),
    Index(
        "uq_predictions_idempotency_key",
        "user_id",
        "idempotency_key",
        unique=True,
        postgresql_where=_HAS_KEY,
        sqlite_where=_HAS_KEY,
    ),
)

#: Sums of what accounts used (usage.py): one row for each day on which something of theirs ended.
usage_days = Table(
    "usage_days",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("succeeded", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("canceled", BigInteger, nullable=False),
    Column("credits", BigInteger, nullable=False),
)

#: Up to which movement of the ledger they are.
usage_progress = Table(
    "usage_progress",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("ledger_id", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

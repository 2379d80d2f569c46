"""The table of predictions. It is also the outbox: queued rows without `published_at` are still to be published."""

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

# Stored exactly as it was sent. On SQLite as text: a column declared JSON would convert a single number to another
# notation.
_Verbatim = JSON(none_as_null=True).with_variant(Text(), "sqlite")

_QUEUED = text("status = 'queued'")
_HAS_KEY = text("idempotency_key IS NOT NULL")
_ENDED = text("status <> 'queued'")
# Equivalent to _QUEUED, but PostgreSQL does not recognise it as the same. Otherwise, when statistics say that both are
# nearly empty, statements on one user's queue could use the index of all users, and the other way round.
_QUEUED_OF_USER = text("coalesce(status, '') = 'queued'")

predictions = Table(
    "predictions",
    metadata,
    #: UUID version 7: newer predictions have higher ids, so the history is paged by id.
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    #: The pool of workers that runs it; NULL for the default pool.
    Column("pool", Text),
    Column("stage", Text, nullable=False),
    #: Exactly as the caller sent it.
    Column("input", _Verbatim, nullable=False),
    Column("price_credits", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("idempotency_key", Text),
    #: BLAKE2b of the request, stored with the key to distinguish a repetition from another request.
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
    #: URL that gets the event of its end, besides the receivers of all events.
    Column("webhook", Text),
    CheckConstraint("status IN ('queued', 'succeeded', 'failed', 'canceled')", name="status"),
    CheckConstraint("price_credits >= 0", name="price_not_negative"),
    CheckConstraint("(status = 'queued') = (finished_at IS NULL)", name="finished_when_ended"),
    CheckConstraint("(status = 'succeeded') = (output IS NOT NULL)", name="output_when_succeeded"),
    CheckConstraint("(status = 'failed') = (error_code IS NOT NULL)", name="error_when_failed"),
    # The lists of a user (pages.py). Queued predictions have a separate index, because they leave it soon.
    Index("ix_predictions_ended", "user_id", "status", "model", "id", postgresql_where=_ENDED, sqlite_where=_ENDED),
    Index(
        "ix_predictions_queued_of_user",
        "user_id",
        "id",
        postgresql_where=_QUEUED_OF_USER,
        sqlite_where=_QUEUED_OF_USER,
    ),
    # The sweeps read only queued predictions.
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

#: Usage of accounts (usage.py): one row for each account, day and model with ended predictions.
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

#: The last movement of the ledger that is included in the sums.
usage_progress = Table(
    "usage_progress",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("ledger_id", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

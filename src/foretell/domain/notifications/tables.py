"""Tables of what is told to whom: events of accounts, who receives them, and what became of each attempt.

Whether an account has events written at all, and the number of its last one, stand in its wallet: settlement locks
that row anyway, so it sees the newest without another look-up, and an account that nobody listens for costs nothing.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)

from foretell.kit.database import Moment, metadata

# SQLite counts up by itself only in a column of exactly this type.
_Counted = BigInteger().with_variant(Integer, "sqlite")
_DUE = text("due_at IS NOT NULL")
_ONCE = text("kind = 'once'")
_TELEGRAM = text("kind = 'telegram'")

#: Kept for 7 days. No foreign key: a row is written together with the wallet that counts it.
events = Table(
    "events",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    #: Counted per account, without gaps.
    Column("sequence", BigInteger, primary_key=True),
    #: The same over all attempts at all receivers. The event of a prediction's end has the prediction's id.
    Column("id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    #: JSON; NULL where it is the prediction as it stands.
    Column("data", Text),
    #: For this endpoint alone.
    Column("endpoint_id", Uuid),
    #: Where the prediction's own webhook is.
    Column("webhook", Text),
    Column("created_at", Moment, nullable=False),
    Index("ix_events_created_at", "created_at"),
)

#: Says to the dispatchers that an account has new events, those with sequences above `after` up to `upto`. Settlement
#: adds rows here and waits for nobody: the endpoints themselves are changed by dispatchers alone.
event_wakes = Table(
    "event_wakes",
    metadata,
    Column("id", _Counted, primary_key=True, autoincrement=True),
    Column("user_id", Uuid, nullable=False),
    Column("after", BigInteger, nullable=False),
    Column("upto", BigInteger, nullable=False),
    #: Whether predictions with webhooks of their own are among them.
    Column("webhooks", Boolean, nullable=False),
)

#: An account for which events are written, and the secret of its predictions' own webhooks.
listeners = Table(
    "listeners",
    metadata,
    Column("user_id", Uuid, ForeignKey("users.id"), primary_key=True),
    #: When somebody last asked for its events.
    Column("asked_at", Moment),
    Column("secret", LargeBinary),
    #: Secrets that were replaced and sign, too: see `rotation`.
    Column("previous_secrets", Text),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False),
    #: `once`: the address that single predictions name.
    Column("kind", Text, nullable=False),
    Column("url", Text),
    #: SHA-256 of the URL of a `once`.
    Column("url_hash", LargeBinary),
    Column("chat_id", BigInteger),
    #: Types of events that are wanted, with commas; NULL for all.
    Column("types", Text),
    Column("description", Text, nullable=False),
    Column("secret", LargeBinary),
    Column("previous_secrets", Text),
    Column("state", Text, nullable=False),
    Column("disabled_reason", Text),
    #: Everything up to this sequence was delivered, given up or not wanted.
    Column("cursor", BigInteger, nullable=False),
    #: The last event there is for it.
    Column("last_event", BigInteger, nullable=False),
    #: Sequences to be sent once more before anything else: a JSON array.
    Column("again", Text),
    #: When to send next, NULL if there is nothing to send. Whoever sends puts it off for as long as he may take.
    Column("due_at", Moment),
    #: Which dispatcher sends.
    Column("leased_by", Uuid),
    #: Attempts that failed since one succeeded.
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("failing_since", Moment),
    #: When the event that comes next failed for the first time.
    Column("head_since", Moment),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("kind IN ('webhook', 'telegram', 'once')", name="kind"),
    CheckConstraint("state IN ('enabled', 'paused', 'disabled')", name="state"),
    Index("ix_endpoints_user_id_id", "user_id", "id"),
    Index("ix_endpoints_due", "due_at", postgresql_where=_DUE, sqlite_where=_DUE),
    Index("uq_endpoints_once", "user_id", "url_hash", unique=True, postgresql_where=_ONCE, sqlite_where=_ONCE),
    Index("uq_endpoints_chat", "chat_id", unique=True, postgresql_where=_TELEGRAM, sqlite_where=_TELEGRAM),
)

#: Every attempt, for 7 days. Of the answer only its status is kept.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Counted, primary_key=True, autoincrement=True),
    Column("endpoint_id", Uuid, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("status_code", Integer),
    #: Why there was no answer, in a word.
    Column("error", Text),
    Column("duration_ms", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    CheckConstraint("outcome IN ('delivered', 'failed', 'given_up')", name="outcome"),
    Index("ix_deliveries_endpoint_id_id", "endpoint_id", "id"),
)

"""Tables of notifications: events of accounts, their receivers, and the outcome of each attempt.

The wallet of an account says whether its events are written, and has the number of the last one. Settlement locks
that row anyway, so it needs no other look-up, and an account without receivers costs nothing.
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

# SQLite has an automatic counter only in a column of exactly this type.
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
    #: The same for all attempts and receivers. The event of a prediction's end has the prediction's id.
    Column("id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    #: JSON; NULL if the data is the prediction itself.
    Column("data", Text),
    #: Only for this endpoint.
    Column("endpoint_id", Uuid),
    #: The URL of the prediction's own webhook.
    Column("webhook", Text),
    Column("created_at", Moment, nullable=False),
    Index("ix_events_created_at", "created_at"),
)

#: New events of an account, for the dispatchers: those with sequences above `after` up to `upto`. Settlement only
#: adds rows here and never waits for a lock: only dispatchers change the endpoints.
event_wakes = Table(
    "event_wakes",
    metadata,
    Column("id", _Counted, primary_key=True, autoincrement=True),
    Column("user_id", Uuid, nullable=False),
    Column("after", BigInteger, nullable=False),
    Column("upto", BigInteger, nullable=False),
    #: Whether some of them are of predictions with their own webhooks.
    Column("webhooks", Boolean, nullable=False),
)

#: An account for which events are written, and the secret of its predictions' own webhooks.
listeners = Table(
    "listeners",
    metadata,
    Column("user_id", Uuid, ForeignKey("users.id"), primary_key=True),
    #: When its events were last requested.
    Column("asked_at", Moment),
    Column("secret", LargeBinary),
    #: Replaced secrets that are still used for signing: see `rotation`.
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
    #: Types of events to send, separated by commas; NULL for all.
    Column("types", Text),
    Column("description", Text, nullable=False),
    Column("secret", LargeBinary),
    Column("previous_secrets", Text),
    Column("state", Text, nullable=False),
    Column("disabled_reason", Text),
    #: Everything up to this sequence was delivered, given up or not wanted.
    Column("cursor", BigInteger, nullable=False),
    #: The last event for this endpoint.
    Column("last_event", BigInteger, nullable=False),
    #: Sequences to redeliver before anything else: a JSON array.
    Column("again", Text),
    #: When to send next, NULL if there is nothing to send. While a dispatcher sends, this is the end of its lease.
    Column("due_at", Moment),
    #: The dispatcher that holds the lease.
    Column("leased_by", Uuid),
    #: Failed attempts since the last success.
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("failing_since", Moment),
    #: When the next event failed for the first time.
    Column("head_since", Moment),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("kind IN ('webhook', 'telegram', 'once')", name="kind"),
    CheckConstraint("state IN ('enabled', 'paused', 'disabled')", name="state"),
    Index("ix_endpoints_user_id_id", "user_id", "id"),
    Index("ix_endpoints_due", "due_at", postgresql_where=_DUE, sqlite_where=_DUE),
    Index("uq_endpoints_once", "user_id", "url_hash", unique=True, postgresql_where=_ONCE, sqlite_where=_ONCE),
    Index("uq_endpoints_chat", "chat_id", unique=True, postgresql_where=_TELEGRAM, sqlite_where=_TELEGRAM),
)

#: Every attempt of the last 7 days. Only the status of the answer is stored.
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
    #: Why there was no answer, as one word.
    Column("error", Text),
    Column("duration_ms", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    CheckConstraint("outcome IN ('delivered', 'failed', 'given_up')", name="outcome"),
    Index("ix_deliveries_endpoint_id_id", "endpoint_id", "id"),
)

"""The tables of the monitoring service: in a separate SQLite file, or in the schema `monitoring` of PostgreSQL.

Predictions need nothing of this, so old rows may be deleted (`retention.py`).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from foretell.kit.database import Moment, metadata

#: The naming convention of the product's tables, but a separate database.
monitoring = MetaData(naming_convention=metadata.naming_convention)

#: One row for each log record. `seq` makes records of the same microsecond distinct: it is the time of arrival in
#: microseconds since 1970, or the next free number.
logs = Table(
    "logs",
    monitoring,
    Column("at", Moment, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("service", Text, nullable=False),
    Column("instance", Text, nullable=False, server_default=""),
    #: Python's numbers: 10 debug, 20 info, 30 warning, 40 error.
    Column("level", SmallInteger, nullable=False),
    Column("message", Text, nullable=False),
    Column("trace_id", Text),
    #: The other fields, as a JSON object.
    Column("fields", Text, nullable=False, server_default="{}"),
    sqlite_with_rowid=False,
)
Index("ix_logs_service", logs.c.service, logs.c.at, logs.c.seq)
#: With service and level, so that a search for one service's errors does not read those of others.
Index(
    "ix_logs_warnings", logs.c.at, logs.c.seq, logs.c.service, logs.c.level,
    postgresql_where=logs.c.level >= 30, sqlite_where=logs.c.level >= 30,
)  # fmt: skip
Index(
    "ix_logs_trace", logs.c.trace_id, logs.c.at, logs.c.seq,
    postgresql_where=logs.c.trace_id.is_not(None), sqlite_where=logs.c.trace_id.is_not(None),
)  # fmt: skip

#: The number of records by minute, service and level, for rates without reading the records; and the approximate size
#: of those that still exist.
log_counts = Table(
    "log_counts",
    monitoring,
    Column("minute", Moment, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("records", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

#: Single metric values from `POST /metrics`.
samples = Table(
    "samples",
    monitoring,
    Column("at", Moment, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("service", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Float, nullable=False),
    sqlite_with_rowid=False,
)
Index("ix_samples_service", samples.c.service, samples.c.at, samples.c.seq)

#: One row for each process. A process that restarts under the same name is another instance.
instances = Table(
    "instances",
    monitoring,
    Column("id", Integer, primary_key=True),
    Column("service", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("hostname", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("address", Text, nullable=False),
    #: healthy, unhealthy, missing or stopped, and since when.
    Column("state", Text, nullable=False),
    Column("state_since", Moment, nullable=False),
    Column("last_seen_at", Moment, nullable=False, index=True),
    #: Its last /health answer, as JSON.
    Column("health", Text, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("cpu_s", Float, nullable=False),
    Column("logs_dropped", BigInteger, nullable=False),
    UniqueConstraint("service", "instance", "started_at"),
)

#: All metrics of an instance at one time: `list[contracts.monitoring.Family]` as MessagePack.
snapshots = Table(
    "snapshots",
    monitoring,
    Column("instance_id", ForeignKey(instances.c.id, ondelete="CASCADE"), primary_key=True),
    Column("at", Moment, primary_key=True, index=True),
    Column("body", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

#: One instance's counts of one model version over a few seconds: `contracts.monitoring.Observation` as MessagePack.
observations = Table(
    "observations",
    monitoring,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("at", Moment, nullable=False, index=True),
    Column("rows", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("ix_observations_model", observations.c.model, observations.c.version, observations.c.at)

#: The last drift finding of each model version, as JSON (`drift/`).
drift_findings = Table(
    "drift_findings",
    monitoring,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("computed_at", Moment, nullable=False),
    Column("body", Text, nullable=False),
)

#: One row for each period in which a rule's condition holds for a subject: pending, firing, then resolved.
alerts = Table(
    "alerts",
    monitoring,
    Column("id", Text, primary_key=True),
    Column("rule", Text, nullable=False),
    #: The subject as a JSON object of texts, with sorted names: `{"instance": "w-2", "service": "ml_worker"}`.
    Column("subject", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("value", Float),
    Column("summary", Text, nullable=False),
    Column("pending_since", Moment, nullable=False),
    Column("fired_at", Moment),
    Column("clear_since", Moment),
    Column("resolved_at", Moment, index=True),
    #: Why it was resolved: cleared, no_data or rule_off.
    Column("reason", Text),
    #: Summary and action in every language, as JSON; `summary` is the English one.
    Column("texts", Text),
)
Index(
    "ix_alerts_open", alerts.c.rule, alerts.c.subject, unique=True,
    postgresql_where=alerts.c.resolved_at.is_(None), sqlite_where=alerts.c.resolved_at.is_(None),
)  # fmt: skip

#: The last notification about each subject of a rule, and the number of changes since.
notified = Table(
    "told",
    monitoring,
    Column("rule", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    #: The newest alert about it.
    Column("alert_id", Text, nullable=False),
    #: Whether the last notification was that it fires; and since when further changes are damped.
    Column("fires", Boolean, nullable=False),
    Column("since", Moment),
    Column("changes", Integer, nullable=False),
    Column("changed_at", Moment, nullable=False),
)

#: Subjects of rules without notifications until a time.
silences = Table(
    "silences",
    monitoring,
    Column("rule", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("until", Moment, nullable=False),
)

#: The outbox of notifications: written with the change of the alert, retried until delivered or given up.
notices = Table(
    "notices",
    monitoring,
    Column("id", Text, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", Moment, index=True),
    Column("sent_at", Moment),
    Column("last_error", Text),
)

#: The revenue of each model and day (UTC), as last reported by a dispatcher, which reports only two days. Never
#: deleted, because these are only a few rows a day.
revenue = Table(
    "revenue",
    monitoring,
    #: `2026-01-31`.
    Column("day", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("credits", BigInteger, nullable=False),
    Column("predictions", BigInteger, nullable=False),
    #: The time of the figures.
    Column("as_of", Moment, nullable=False),
)

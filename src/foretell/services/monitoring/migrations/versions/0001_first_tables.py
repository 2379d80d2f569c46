"""The first tables: records, instances and their snapshots, observations, findings, alerts."""

import sqlalchemy as sa
from alembic import op

from foretell.kit.database import Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_records()
    _create_instances()
    _create_observations()
    _create_alerts()


def _create_records() -> None:
    op.create_table(
        "logs",
        sa.Column("at", Moment, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("instance", sa.Text, nullable=False, server_default=""),
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("trace_id", sa.Text),
        sa.Column("fields", sa.Text, nullable=False, server_default="{}"),
        sa.PrimaryKeyConstraint("at", "seq", name=op.f("pk_logs")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_logs_service"), "logs", ["service", "at", "seq"])
    _create_partial_index("ix_logs_warnings", "logs", ["at", "seq", "service", "level"], "level >= 30")
    _create_partial_index("ix_logs_trace", "logs", ["trace_id", "at", "seq"], "trace_id IS NOT NULL")
    op.create_table(
        "log_counts",
        sa.Column("minute", Moment, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("level", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("minute", "service", "level", name=op.f("pk_log_counts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "samples",
        sa.Column("at", Moment, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("at", "seq", name=op.f("pk_samples")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_samples_service"), "samples", ["service", "at", "seq"])


def _create_instances() -> None:
    op.create_table(
        "instances",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("hostname", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_since", Moment, nullable=False),
        sa.Column("last_seen_at", Moment, nullable=False),
        sa.Column("health", sa.Text, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("cpu_s", sa.Float, nullable=False),
        sa.Column("logs_dropped", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("service", "instance", "started_at", name=op.f("uq_instances_service_instance_started_at")),
    )
    op.create_index(op.f("ix_instances_last_seen_at"), "instances", ["last_seen_at"])
    op.create_table(
        "snapshots",
        sa.Column("instance_id", sa.Integer, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "at", name=op.f("pk_snapshots")),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_snapshots_instance_id_instances"), ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_snapshots_at"), "snapshots", ["at"])


def _create_observations() -> None:
    op.create_table(
        "observations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_observations")),
    )
    op.create_index(op.f("ix_observations_at"), "observations", ["at"])
    op.create_index(op.f("ix_observations_model"), "observations", ["model", "version", "at"])
    op.create_table(
        "drift_findings",
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("computed_at", Moment, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_drift_findings")),
    )


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("pending_since", Moment, nullable=False),
        sa.Column("fired_at", Moment),
        sa.Column("clear_since", Moment),
        sa.Column("resolved_at", Moment),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(op.f("ix_alerts_resolved_at"), "alerts", ["resolved_at"])
    _create_partial_index("ix_alerts_open", "alerts", ["rule", "subject"], "resolved_at IS NULL", unique=True)
    op.create_table(
        "notices",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_attempt_at", Moment),
        sa.Column("sent_at", Moment),
        sa.Column("last_error", sa.Text),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    op.create_index(op.f("ix_notices_next_attempt_at"), "notices", ["next_attempt_at"])


def _create_partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(op.f(name), table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition)

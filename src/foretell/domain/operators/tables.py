"""The journal of operators' actions. Rows are added and never changed: triggers refuse it (migrations 0007, 0008)."""

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, Uuid

from foretell.kit.database import Moment, metadata

journal = Table(
    "journal",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Moment, nullable=False),
    #: NULL for the command line.
    Column("operator_id", Uuid),
    Column("operator", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("act", Text, nullable=False),
    #: The object of the action: `user:ID`, `model:NAME`, `queue:NAME`, ...
    Column("subject", Text, nullable=False),
    #: The state before and after the action: JSON.
    Column("before", Text),
    Column("after", Text),
    Index("ix_journal_subject_id", "subject", "id"),
)

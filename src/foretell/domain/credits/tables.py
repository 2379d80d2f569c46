"""Tables of credits: the wallet of each user, and the ledger with every movement."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, Uuid, text

from foretell.kit.database import Moment, metadata

#: How each kind of movement changes (available, held), per credit of its amount. Only an adjustment may be negative.
MOVEMENTS: dict[str, tuple[int, int]] = {
    "grant": (1, 0),
    "top_up": (1, 0),
    "refund": (1, 0),
    "adjustment": (1, 0),
    "hold": (-1, 1),
    "capture": (0, -1),
    "release": (1, -1),
}

wallets = Table(
    "wallets",
    metadata,
    Column("user_id", Uuid, ForeignKey("users.id"), primary_key=True),
    Column("available", BigInteger, nullable=False, server_default="0"),
    Column("held", BigInteger, nullable=False, server_default="0"),
    # Columns of domain/notifications are in this table, because a settlement has locked this row anyway: whether events
    # are written for this account, the number of the last one, ...
    Column("listening", Boolean, nullable=False, server_default="0"),
    Column("last_event", BigInteger, nullable=False, server_default="0"),
    #: ... and the number of credits, available and held, below which the owner gets an event.
    Column("low_threshold", BigInteger),
    CheckConstraint("available >= 0", name="available_not_negative"),
    CheckConstraint("held >= 0", name="held_not_negative"),
)

#: Rows are added and never changed: triggers refuse it (see the first migration).
#: No foreign keys: a row is always written in one statement with its wallet and prediction, a key would cost
#: every prediction two look-ups, and `foretell audit` checks the same.
ledger = Table(
    "ledger",
    metadata,
    # SQLite has an automatic counter only in a column of exactly this type.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("user_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("prediction_id", Uuid),
    #: The id of the payment or order in an external system.
    Column("reference", Text),
    Column("note", Text),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("kind IN ({})".format(", ".join(f"'{kind}'" for kind in MOVEMENTS)), name="kind"),
    CheckConstraint("amount >= 0 OR kind = 'adjustment'", name="amount_not_negative"),
    Index("ix_ledger_user_id_id", "user_id", "id"),
    Index(
        "uq_ledger_hold",
        "prediction_id",
        unique=True,
        postgresql_where=text("kind = 'hold'"),
        sqlite_where=text("kind = 'hold'"),
    ),
    Index(
        "uq_ledger_capture_or_release",
        "prediction_id",
        unique=True,
        postgresql_where=text("kind IN ('capture', 'release')"),
        sqlite_where=text("kind IN ('capture', 'release')"),
    ),
    Index(
        "uq_ledger_reference",
        "reference",
        unique=True,
        postgresql_where=text("reference IS NOT NULL"),
        sqlite_where=text("reference IS NOT NULL"),
    ),
)

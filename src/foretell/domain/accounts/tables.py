"""Tables of users and their credentials. Secrets are stored only as hashes."""

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKey, Index, LargeBinary, Table, Text, Uuid, text

from foretell.kit.database import Moment, metadata

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    #: As the user wrote it.
    Column("username", Text, nullable=False),
    #: Case-folded and normalised; must be unique.
    Column("username_key", Text, nullable=False, unique=True),
    #: argon2id, in its own encoded form.
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False, server_default="user"),
    Column("active", Boolean, nullable=False, server_default="1"),
    Column("created_at", Moment, nullable=False),
    #: Language of the page; NULL: as set in the browser.
    Column("language", Text),
    Column("theme", Text),
    #: Access tokens issued earlier are invalid: the account was closed, or its password changed.
    Column("tokens_from", Moment),
    #: When its owner closed it; NULL for an inactive account means that it was blocked.
    Column("closed_at", Moment),
    #: Whether it is the account of `foretell bench`: its predictions count neither as revenue nor in comparisons.
    Column("measuring", Boolean, nullable=False, server_default="0"),
    CheckConstraint("role IN ('user', 'operator')", name="role"),
    # Every app process queries the newest of them regularly.
    Index(
        "ix_users_tokens_from",
        "tokens_from",
        postgresql_where=text("tokens_from IS NOT NULL"),
        sqlite_where=text("tokens_from IS NOT NULL"),
    ),
    Index("ix_users_measuring", "id", postgresql_where=text("measuring"), sqlite_where=text("measuring = 1")),
)

#: One row per refresh token ever issued; those of one log-in are a family.
refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("family_id", Uuid, nullable=False, index=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False, index=True),
    #: SHA-256 of the token; it has 256 random bits, so it needs no slow hash.
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False, index=True),
    Column("used_at", Moment),
    Column("revoked_at", Moment),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False),
    Column("name", Text, nullable=False),
    #: The first characters of the key, so that its owner recognises it.
    Column("prefix", Text, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment),
    Column("revoked_at", Moment),
    Index("ix_api_keys_user_id_id", "user_id", "id"),
)

#: Sessions of browsers; the secret is in a cookie. Ended sessions are deleted.
sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False),
    #: SHA-256 of the secret, as for refresh tokens.
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False, index=True),
    Column("user_agent", Text, nullable=False),
    Column("address", Text, nullable=False),
    Index("ix_sessions_user_id_id", "user_id", "id"),
)

"""Tables of people and programs, and of what they prove themselves with. Secrets are stored hashed only."""

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKey, Index, LargeBinary, Table, Text, Uuid, text

from foretell.kit.database import Moment, metadata

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    #: As the user wrote it.
    Column("username", Text, nullable=False),
    #: Case-folded and normalised: what must be unique.
    Column("username_key", Text, nullable=False, unique=True),
    #: argon2id, in its own encoded form.
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False, server_default="user"),
    Column("active", Boolean, nullable=False, server_default="1"),
    Column("created_at", Moment, nullable=False),
    #: How its owner wants the page: NULL is as the browser says.
    Column("language", Text),
    Column("theme", Text),
    #: Access tokens that were issued before are no good: the account was closed, or its password changed.
    Column("tokens_from", Moment),
    #: When its owner closed it; an account that is not active and has none was blocked.
    Column("closed_at", Moment),
    #: Whether it is the account of `foretell bench`, whose predictions are no revenue and are left out of comparisons.
    Column("measuring", Boolean, nullable=False, server_default="0"),
    CheckConstraint("role IN ('user', 'operator')", name="role"),
    # Every app process asks for the newest of them, again and again.
    Index(
        "ix_users_tokens_from",
        "tokens_from",
        postgresql_where=text("tokens_from IS NOT NULL"),
        sqlite_where=text("tokens_from IS NOT NULL"),
    ),
    Index("ix_users_measuring", "id", postgresql_where=text("measuring"), sqlite_where=text("measuring = 1")),
)

#: One row per refresh token ever given out; those made from one log-in are one family.
refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("family_id", Uuid, nullable=False, index=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False, index=True),
    #: SHA-256 of the token, which is 256 random bits and so needs no slow hash.
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
    #: The first characters of the key, by which its owner recognises it.
    Column("prefix", Text, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment),
    Column("revoked_at", Moment),
    Index("ix_api_keys_user_id_id", "user_id", "id"),
)

#: Sessions of browsers, whose secret is in a cookie. One that is over is deleted.
sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False),
    #: SHA-256 of the secret, as of a refresh token.
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False, index=True),
    Column("user_agent", Text, nullable=False),
    Column("address", Text, nullable=False),
    Index("ix_sessions_user_id_id", "user_id", "id"),
)

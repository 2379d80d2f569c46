"""Tables of Telegram: chats that act for accounts, and payments in Stars."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, LargeBinary, Table, Text, Uuid

from foretell.kit.database import Moment, metadata

#: Every chat that was ever linked; `user_id` is NULL if it was unlinked.
telegram_chats = Table(
    "telegram_chats",
    metadata,
    Column("chat_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", Uuid, ForeignKey("users.id"), index=True),
    #: The account that was created for this chat. It gets the same account again, since a chat gets one sign-up grant.
    Column("own_user_id", Uuid, ForeignKey("users.id")),
    #: The name of the person or the group in Telegram.
    Column("name", Text),
    Column("linked_at", Moment),
)

#: Codes in deep links: valid once, for some minutes, for the account that created them.
telegram_codes = Table(
    "telegram_codes",
    metadata,
    #: SHA-256 of the code, which is 192 random bits.
    Column("code_hash", LargeBinary, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    #: Kept until it expires, so that a repeated call by the same chat gets the same answer.
    Column("used_by_chat_id", BigInteger),
)

#: One row: the name that the bot reported.
telegram_bot = Table(
    "telegram_bot",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("username", Text, nullable=False),
    CheckConstraint("id = 1", name="id"),
)

#: Payments in Stars, by Telegram's id of the charge. The credits are in the ledger, under the reference `telegram:ID`.
telegram_payments = Table(
    "telegram_payments",
    metadata,
    Column("charge_id", Text, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False, index=True),
    Column("chat_id", BigInteger, nullable=False),
    Column("stars", BigInteger, nullable=False),
    Column("credits", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("refunded_at", Moment),
    #: The credits that were still available and were taken back; the rest had been spent.
    Column("refunded_credits", BigInteger),
)

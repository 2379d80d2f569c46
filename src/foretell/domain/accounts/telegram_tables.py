"""Tables of Telegram: which chats act for which account, and what was paid in Stars."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, LargeBinary, Table, Text, Uuid

from foretell.kit.database import Moment, metadata

#: Every chat that was ever linked; `user_id` is NULL for one that is not any more.
telegram_chats = Table(
    "telegram_chats",
    metadata,
    Column("chat_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", Uuid, ForeignKey("users.id"), index=True),
    #: The account that was made for this chat: it comes back to it, since a chat gets one sign-up grant and no more.
    Column("own_user_id", Uuid, ForeignKey("users.id")),
    #: What Telegram calls the person or the group.
    Column("name", Text),
    Column("linked_at", Moment),
)

#: What stands in a deep link: good once, for some minutes, for the account that made it.
telegram_codes = Table(
    "telegram_codes",
    metadata,
    #: SHA-256 of the code, which is 192 random bits.
    Column("code_hash", LargeBinary, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    #: Kept until it expires, so that whoever used it hears the same answer when they ask again.
    Column("used_by_chat_id", BigInteger),
)

#: One row: what the bot said it is called.
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
    #: What was still there to be taken back; the rest had been spent.
    Column("refunded_credits", BigInteger),
)

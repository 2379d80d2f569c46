"""Settings of a chat: language, notifications, and the cursors of its list pages."""

import sqlite3
from typing import NamedTuple

from foretell.services.bot.storage.database import BotDatabase

#: Pages of lists that are older than this many messages are forgotten.
_MESSAGES_REMEMBERED = 1000


class ChatSettings(NamedTuple):
    """The settings of one chat."""

    #: The chosen language; None: that of Telegram.
    language: str | None = None
    #: Whether the chat also gets results of predictions that were made elsewhere.
    elsewhere: bool = False
    blocked: bool = False
    #: The Telegram language of the person who wrote here last.
    heard: str | None = None

    @property
    def spoken(self) -> str:
        """The language of messages that answer nobody."""
        return self.language or self.heard or "en"


class Chats:
    """Settings by chat."""

    def __init__(self, database: BotDatabase) -> None:
        self._database = database

    async def of(self, chat_id: int) -> ChatSettings:
        """The settings of a chat; the defaults for an unknown one."""

        def work(connection: sqlite3.Connection) -> ChatSettings:
            row = connection.execute(
                "SELECT language, elsewhere, blocked, heard FROM chats WHERE chat_id = ?", (chat_id,)
            ).fetchone()
            if row is None:
                return ChatSettings()
            return ChatSettings(row["language"], bool(row["elsewhere"]), bool(row["blocked"]), row["heard"])

        return await self._database.run(work)

    async def change(self, chat_id: int, **columns: object) -> None:
        """Set columns by name."""
        names = [name for name in columns if name in ChatSettings._fields]
        assert len(names) == len(columns)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO chats (chat_id) VALUES (?)", (chat_id,))
            for name in names:
                connection.execute(f"UPDATE chats SET {name} = ? WHERE chat_id = ?", (columns[name], chat_id))  # noqa: S608

        await self._database.run(work)

    async def forget_account(self, chat_id: int) -> None:
        """Reset what the account of a chat wanted, and delete its pages. The language and `blocked` stay."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE chats SET elsewhere = 0 WHERE chat_id = ?", (chat_id,))
            connection.execute("DELETE FROM pages WHERE chat_id = ?", (chat_id,))

        await self._database.run(work)

    async def remember_page(self, chat_id: int, message_id: int, page: int, cursor: str) -> None:
        """Store the cursor of a list page, which is too long for a button. Old lists are deleted."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO pages (chat_id, message_id, page, cursor) VALUES (?, ?, ?, ?)",
                (chat_id, message_id, page, cursor),
            )
            connection.execute(
                "DELETE FROM pages WHERE chat_id = ? AND message_id < ?", (chat_id, message_id - _MESSAGES_REMEMBERED)
            )

        await self._database.run(work)

    async def page(self, chat_id: int, message_id: int, page: int) -> str | None:
        """The cursor of a page; None when it is not stored."""

        def work(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                "SELECT cursor FROM pages WHERE chat_id = ? AND message_id = ? AND page = ?",
                (chat_id, message_id, page),
            ).fetchone()
            return None if row is None else str(row["cursor"])

        return await self._database.run(work)

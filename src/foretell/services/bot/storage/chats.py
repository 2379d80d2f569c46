"""What is remembered of a chat: its language, what it wants to hear, and where its lists were turned to."""

import sqlite3
from typing import NamedTuple

from foretell.services.bot.storage.database import BotDatabase

#: A list so many messages ago can't be turned any more.
_MESSAGES_REMEMBERED = 1000


class ChatSettings(NamedTuple):
    """How one chat wants it."""

    #: The language that was chosen; None: Telegram's.
    language: str | None = None
    #: Whether results of predictions made elsewhere are told here, too.
    elsewhere: bool = False
    blocked: bool = False
    #: The language of whoever wrote here last, by their Telegram.
    heard: str | None = None

    @property
    def spoken(self) -> str:
        """The language to speak when nobody has just written."""
        return self.language or self.heard or "en"


class Chats:
    """Settings by chat."""

    def __init__(self, database: BotDatabase) -> None:
        self._database = database

    async def of(self, chat_id: int) -> ChatSettings:
        """The settings of a chat; those of a new one when it is not known."""

        def work(connection: sqlite3.Connection) -> ChatSettings:
            row = connection.execute(
                "SELECT language, elsewhere, blocked, heard FROM chats WHERE chat_id = ?", (chat_id,)
            ).fetchone()
            if row is None:
                return ChatSettings()
            return ChatSettings(row["language"], bool(row["elsewhere"]), bool(row["blocked"]), row["heard"])

        return await self._database.run(work)

    async def change(self, chat_id: int, **columns: object) -> None:
        """Set some of them, by their names."""
        names = [name for name in columns if name in ChatSettings._fields]
        assert len(names) == len(columns)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO chats (chat_id) VALUES (?)", (chat_id,))
            for name in names:
                connection.execute(f"UPDATE chats SET {name} = ? WHERE chat_id = ?", (columns[name], chat_id))  # noqa: S608

        await self._database.run(work)

    async def remember_page(self, chat_id: int, message_id: int, page: int, cursor: str) -> None:
        """Where a page of a list begins: its cursor is too long for a button. Lists of long ago are forgotten."""

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
        """The cursor of that page; None when it is not remembered."""

        def work(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                "SELECT cursor FROM pages WHERE chat_id = ? AND message_id = ? AND page = ?",
                (chat_id, message_id, page),
            ).fetchone()
            return None if row is None else str(row["cursor"])

        return await self._database.run(work)

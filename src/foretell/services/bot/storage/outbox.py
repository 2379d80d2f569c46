"""The outbox of events for chats: each event once for each chat, in order of arrival."""

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from foretell.kit.clock import now
from foretell.services.bot.storage.database import BotDatabase

#: How long ids of events are kept. The dispatcher gives up an event after 7 days, so it can't repeat one later.
_KEPT_S = 8 * 86_400.0


class Event(NamedTuple):
    """One event for one chat."""

    number: int
    chat_id: int
    type: str
    #: JSON, as in a webhook.
    data: bytes
    stored_at: float
    #: The account of the event; empty if unknown.
    account: str = ""


class Outbox:
    """Stores events."""

    def __init__(self, database: BotDatabase) -> None:
        self._database = database
        #: Called with the id of a chat that has a new event.
        self.on_new: Callable[[int], None] = lambda chat_id: None

    async def put(self, event: str, chat_id: int, type_: str, data: bytes, *, account: str = "") -> bool:
        """Store an event by its id; False when it was already stored."""

        def work(connection: sqlite3.Connection) -> bool:
            at = now().timestamp()
            connection.execute("DELETE FROM outbox WHERE done_at < ?", (at - _KEPT_S,))
            put = connection.execute(
                "INSERT OR IGNORE INTO outbox (event, chat_id, type, data, stored_at, account) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (event, chat_id, type_, data, at, account),
            )
            return bool(put.rowcount)

        new = await self._database.run(work)
        if new:
            self.on_new(chat_id)
        return new

    async def chats(self) -> list[int]:
        """The chats with waiting events."""
        return await self._database.run(
            lambda connection: [
                row[0] for row in connection.execute("SELECT DISTINCT chat_id FROM outbox WHERE done_at IS NULL")
            ]
        )

    async def next_of(self, chat_id: int) -> Event | None:
        """The oldest waiting event of this chat, or None."""

        def work(connection: sqlite3.Connection) -> Event | None:
            row = connection.execute(
                "SELECT number, chat_id, type, data, stored_at, account FROM outbox "
                "WHERE chat_id = ? AND done_at IS NULL ORDER BY number LIMIT 1",
                (chat_id,),
            ).fetchone()
            return None if row is None else Event(*row)

        return await self._database.run(work)

    async def done(self, number: int) -> None:
        """Mark an event as delivered or given up."""
        at = now().timestamp()
        await self._database.run(
            lambda connection: connection.execute("UPDATE outbox SET done_at = ? WHERE number = ?", (at, number))
        )

    async def drop(self, chat_id: int) -> int:
        """Drop the waiting events of this chat; returns their number."""
        at = now().timestamp()
        return await self._database.run(
            lambda connection: (
                connection.execute(
                    "UPDATE outbox SET done_at = ? WHERE chat_id = ? AND done_at IS NULL", (at, chat_id)
                ).rowcount
            )
        )

    async def waiting(self) -> int:
        """The number of waiting events."""
        return await self._database.run(
            lambda connection: connection.execute("SELECT count(*) FROM outbox WHERE done_at IS NULL").fetchone()[0]
        )

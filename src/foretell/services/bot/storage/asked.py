"""What was asked for in Telegram, and which message waits for its result."""

import sqlite3
from typing import Any, NamedTuple

import msgspec

from foretell.kit.clock import now
from foretell.services.bot.storage.database import BotDatabase

#: It stays so long: an event may come again; what nobody told by then never will be.
_KEPT_S = 8 * 86_400.0
_LATEST_LOOK_S = 600.0


class Asked(NamedTuple):
    """One prediction that somebody wants."""

    #: The idempotency key.
    key: str
    chat_id: int
    user_id: int
    #: The message that becomes the result; 0 when there is none any more.
    message_id: int
    language: str
    model: str
    input: dict[str, Any]
    prediction_id: str | None = None
    #: sending, waiting, told
    state: str = "sending"
    asked_at: float = 0.0
    looks: int = 0


def _asked(row: sqlite3.Row) -> Asked:
    values = {name: row[name] for name in Asked._fields}
    return Asked(**{**values, "input": msgspec.json.decode(row["input"])})


class AskedPredictions:
    """Remembers them from before they are sent until after they are told."""

    def __init__(self, database: BotDatabase, look_after_s: float = 15.0) -> None:
        """After `look_after_s` without a word of its result, a prediction is to be looked at."""
        self._database = database
        self._look_after_s = look_after_s

    async def by_key(self, key: str) -> Asked | None:
        """What was written down under this key."""

        def work(connection: sqlite3.Connection) -> Asked | None:
            row = connection.execute("SELECT * FROM asked WHERE key = ?", (key,)).fetchone()
            return None if row is None else _asked(row)

        return await self._database.run(work)

    async def begin(self, asked: Asked) -> None:
        """Write down that it is about to be sent."""

        def work(connection: sqlite3.Connection) -> None:
            at = now().timestamp()
            row = (
                asked.key,
                asked.chat_id,
                asked.user_id,
                asked.message_id,
                asked.language,
                asked.model,
                msgspec.json.encode(asked.input),
                at,
                at + self._look_after_s,
            )
            connection.execute(
                "INSERT OR IGNORE INTO asked (key, chat_id, user_id, message_id, language, model, input, state, "
                "asked_at, look_at) VALUES (?, ?, ?, ?, ?, ?, ?, 'sending', ?, ?)",
                row,
            )
            connection.execute("DELETE FROM asked WHERE asked_at < ?", (at - _KEPT_S,))

        await self._database.run(work)

    async def accepted(self, key: str, prediction_id: str) -> None:
        """The app has it."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE asked SET prediction_id = ?, look_at = ?, "
                "state = CASE state WHEN 'sending' THEN 'waiting' ELSE state END WHERE key = ?",
                (prediction_id, now().timestamp() + self._look_after_s, key),
            )

        await self._database.run(work)

    async def refused(self, key: str) -> None:
        """The app does not want it; nothing was done."""
        await self._database.run(lambda connection: connection.execute("DELETE FROM asked WHERE key = ?", (key,)))

    async def forget_of(self, user_id: int) -> None:
        """Nobody waits for what this person asked for: whose account it was has changed."""
        await self._database.run(
            lambda connection: connection.execute("DELETE FROM asked WHERE user_id = ? AND state <> 'told'", (user_id,))
        )

    async def told(self, key: str) -> None:
        """Its result is in the chat."""
        await self._database.run(
            lambda connection: connection.execute("UPDATE asked SET state = 'told' WHERE key = ?", (key,))
        )

    async def by_prediction(self, prediction_id: str) -> Asked | None:
        """Who asked for this prediction here."""

        def work(connection: sqlite3.Connection) -> Asked | None:
            row = connection.execute("SELECT * FROM asked WHERE prediction_id = ?", (prediction_id,)).fetchone()
            return None if row is None else _asked(row)

        return await self._database.run(work)

    async def sending_since(self, user_id: int) -> float | None:
        """Since when something of this person is on its way to the app; None when nothing is."""

        def work(connection: sqlite3.Connection) -> float | None:
            found = connection.execute(
                "SELECT min(asked_at) FROM asked WHERE user_id = ? AND state = 'sending'", (user_id,)
            )
            since = found.fetchone()[0]
            return None if since is None else float(since)

        return await self._database.run(work)

    async def due(self, limit: int = 100) -> list[Asked]:
        """Those that nothing was heard of for longer than usual; each is due again after twice as long."""

        def work(connection: sqlite3.Connection) -> list[Asked]:
            at = now().timestamp()
            rows = connection.execute(
                "SELECT * FROM asked WHERE state IN ('sending', 'waiting') AND look_at <= ? ORDER BY look_at LIMIT ?",
                (at, limit),
            ).fetchall()
            for row in rows:
                pause_s = min(_LATEST_LOOK_S, self._look_after_s * 2 ** min(row["looks"], 10))
                connection.execute(
                    "UPDATE asked SET looks = looks + 1, look_at = ? WHERE key = ?", (at + pause_s, row["key"])
                )
            return [_asked(row) for row in rows]

        return await self._database.run(work)

    async def look_at_once(self) -> None:
        """Have all that is open looked at: after a start, something may have ended while we were away."""
        await self._database.run(
            lambda connection: connection.execute("UPDATE asked SET look_at = 0 WHERE state IN ('sending', 'waiting')")
        )

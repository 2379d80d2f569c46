"""Predictions that were requested in Telegram, and the messages that show their results."""

import sqlite3
from typing import Any, NamedTuple

import msgspec

from foretell.kit.clock import now
from foretell.services.bot.storage.database import BotDatabase

#: Rows are kept this long, since an event may be sent again; older results are no longer shown.
_KEPT_S = 8 * 86_400.0
_LATEST_LOOK_S = 600.0


class Asked(NamedTuple):
    """One requested prediction."""

    #: The idempotency key.
    key: str
    chat_id: int
    user_id: int
    #: The message that will show the result; 0 when it no longer exists.
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
    """Stores predictions before they are submitted, until after their results are shown."""

    def __init__(self, database: BotDatabase, look_after_s: float = 15.0) -> None:
        """A prediction is due for polling after `look_after_s` without its result."""
        self._database = database
        self._look_after_s = look_after_s

    async def by_key(self, key: str) -> Asked | None:
        """The prediction with this idempotency key, or None."""

        def work(connection: sqlite3.Connection) -> Asked | None:
            row = connection.execute("SELECT * FROM asked WHERE key = ?", (key,)).fetchone()
            return None if row is None else _asked(row)

        return await self._database.run(work)

    async def begin(self, asked: Asked) -> None:
        """Store a prediction before it is submitted."""

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
        """Record that the app has accepted it."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE asked SET prediction_id = ?, look_at = ?, "
                "state = CASE state WHEN 'sending' THEN 'waiting' ELSE state END WHERE key = ?",
                (prediction_id, now().timestamp() + self._look_after_s, key),
            )

        await self._database.run(work)

    async def refused(self, key: str) -> None:
        """Delete a prediction that the app has refused."""
        await self._database.run(lambda connection: connection.execute("DELETE FROM asked WHERE key = ?", (key,)))

    async def forget_of(self, user_id: int) -> None:
        """Delete the open predictions of a person, whose account has changed."""
        await self._database.run(
            lambda connection: connection.execute("DELETE FROM asked WHERE user_id = ? AND state <> 'told'", (user_id,))
        )

    async def told(self, key: str) -> None:
        """Record that its result is shown in the chat."""
        await self._database.run(
            lambda connection: connection.execute("UPDATE asked SET state = 'told' WHERE key = ?", (key,))
        )

    async def by_prediction(self, prediction_id: str) -> Asked | None:
        """The request of this prediction, or None if it was made elsewhere."""

        def work(connection: sqlite3.Connection) -> Asked | None:
            row = connection.execute("SELECT * FROM asked WHERE prediction_id = ?", (prediction_id,)).fetchone()
            return None if row is None else _asked(row)

        return await self._database.run(work)

    async def sending_since(self, user_id: int) -> float | None:
        """Since when a prediction of this person is being submitted, or None."""

        def work(connection: sqlite3.Connection) -> float | None:
            found = connection.execute(
                "SELECT min(asked_at) FROM asked WHERE user_id = ? AND state = 'sending'", (user_id,)
            )
            since = found.fetchone()[0]
            return None if since is None else float(since)

        return await self._database.run(work)

    async def due(self, limit: int = 100) -> list[Asked]:
        """The predictions that are due for polling; each is due again after twice the time."""

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
        """Make all open predictions due: after a start, since they may have ended while the bot was down."""
        await self._database.run(
            lambda connection: connection.execute("UPDATE asked SET look_at = 0 WHERE state IN ('sending', 'waiting')")
        )

"""Stars that were paid, until the app has counted them."""

import sqlite3
from typing import NamedTuple

from foretell.services.bot.storage.database import BotDatabase


class Payment(NamedTuple):
    """One payment."""

    charge_id: str
    user_id: int
    chat_id: int
    stars: int
    credits: int
    counted: bool = False


class Payments:
    """Remembers them for good: each is somebody's money."""

    def __init__(self, database: BotDatabase) -> None:
        self._database = database

    async def add(self, payment: Payment) -> bool:
        """Write it down; False when it was before."""
        return await self._database.run(
            lambda connection: bool(
                connection.execute(
                    "INSERT OR IGNORE INTO payments (charge_id, user_id, chat_id, stars, credits) "
                    "VALUES (?, ?, ?, ?, ?)",
                    payment[:5],
                ).rowcount
            )
        )

    async def counted(self, charge_id: str) -> bool:
        """The app has counted it; False when that was known."""
        return await self._database.run(
            lambda connection: bool(
                connection.execute(
                    "UPDATE payments SET counted = 1 WHERE charge_id = ? AND counted = 0", (charge_id,)
                ).rowcount
            )
        )

    async def not_counted(self) -> list[Payment]:
        """Those that the app does not know of yet."""
        return await self._database.run(lambda connection: _found(connection, "counted = 0"))

    async def find(self, charge_id: str) -> Payment | None:
        """One of them."""
        found = await self._database.run(lambda connection: _found(connection, "charge_id = ?", charge_id))
        return found[0] if found else None


def _found(connection: sqlite3.Connection, condition: str, *values: object) -> list[Payment]:
    rows = connection.execute(
        f"SELECT charge_id, user_id, chat_id, stars, credits, counted FROM payments WHERE {condition}",  # noqa: S608
        values,
    )
    return [Payment(*row) for row in rows]

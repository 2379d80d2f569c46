"""Payments in stars, whether the app has booked them, and whether the chat was thanked."""

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
    thanked: bool = False


class Payments:
    """Stores payments. They are never deleted, because they are people's money."""

    def __init__(self, database: BotDatabase) -> None:
        self._database = database

    async def add(self, payment: Payment) -> bool:
        """Store a payment; False when it was already stored."""
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
        """Mark a payment as booked by the app; False when it was already marked."""
        return await self._database.run(
            lambda connection: bool(
                connection.execute(
                    "UPDATE payments SET counted = 1 WHERE charge_id = ? AND counted = 0", (charge_id,)
                ).rowcount
            )
        )

    async def thanked(self, charge_id: str) -> None:
        """Mark that the chat knows of the credits."""
        await self._database.run(
            lambda connection: connection.execute("UPDATE payments SET thanked = 1 WHERE charge_id = ?", (charge_id,))
        )

    async def not_counted(self) -> list[Payment]:
        """The payments that the app has not booked yet."""
        return await self._database.run(lambda connection: _found(connection, "counted = 0"))

    async def find(self, charge_id: str) -> Payment | None:
        """The payment of this charge, or None."""
        found = await self._database.run(lambda connection: _found(connection, "charge_id = ?", charge_id))
        return found[0] if found else None


def _found(connection: sqlite3.Connection, condition: str, *values: object) -> list[Payment]:
    rows = connection.execute(
        f"SELECT charge_id, user_id, chat_id, stars, credits, counted, thanked FROM payments WHERE {condition}",  # noqa: S608
        values,
    )
    return [Payment(*row) for row in rows]

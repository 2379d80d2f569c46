"""The inbox of updates: stored before they are confirmed to Telegram, removed after they are handled."""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from foretell.kit.clock import now
from foretell.services.bot.storage.database import BotDatabase

#: Waiting updates of one person, at most; more are dropped as a flood.
MOST_OF_ONE = 30
#: After a week without updates Telegram may restart their ids anywhere, so older ids than this are not used as an
#: offset.
RENUMBERED_AFTER_S = 86_400.0
#: Telegram repeats an update for a day at most.
_REMEMBERED_S = 2 * 86_400.0


class Arrived(NamedTuple):
    """One update as it arrived."""

    update_id: int
    person_id: int
    body: bytes
    #: Whether it is stored even if too many are waiting, and handled before them.
    of_money: bool = False


class Waiting(NamedTuple):
    """One update that is not handled yet."""

    update_id: int
    person_id: int
    body: bytes
    #: The number of started attempts.
    attempts: int
    #: Whether it may have ended an earlier process: it is handled alone, and `begin_again` counts the attempt.
    suspect: bool


class Inbox:
    """Stores updates in order, separately for each person; payments come first."""

    def __init__(self, database: BotDatabase) -> None:
        self._database = database

    async def take(self, arrived: Iterable[Arrived]) -> tuple[set[int], set[int]]:
        """Store new updates; returns their people, and the people who sent too many."""
        updates = list(arrived)

        def work(connection: sqlite3.Connection) -> tuple[set[int], set[int]]:
            people, flooding = set[int](), set[int]()
            at = now().timestamp()
            for update in updates:
                known = connection.execute(
                    "INSERT OR IGNORE INTO received (update_id, at) VALUES (?, ?)", (update.update_id, at)
                )
                if not known.rowcount:
                    continue
                waiting = connection.execute(
                    "SELECT count(*) FROM inbox WHERE person_id = ?", (update.person_id,)
                ).fetchone()[0]
                if waiting >= MOST_OF_ONE and not update.of_money:
                    flooding.add(update.person_id)
                    continue
                connection.execute(
                    "INSERT INTO inbox (update_id, person_id, body, of_money) VALUES (?, ?, ?, ?)",
                    (update.update_id, update.person_id, update.body, update.of_money),
                )
                people.add(update.person_id)
            connection.execute("DELETE FROM received WHERE at < ?", (at - _REMEMBERED_S,))
            return people, flooding

        return await self._database.run(work)

    async def people(self) -> list[int]:
        """The people with waiting updates; first those whose updates have had the fewest attempts."""
        query = "SELECT person_id FROM inbox GROUP BY person_id ORDER BY max(attempts), min(update_id)"
        return await self._database.run(lambda connection: [row[0] for row in connection.execute(query)])

    async def next_of(self, person_id: int) -> Waiting | None:
        """The oldest update of a person, with its first attempt counted; None when there is none.

        Those about money come first: Telegram waits for an answer before a payment for 10 s only.
        """

        def work(connection: sqlite3.Connection) -> Waiting | None:
            row = connection.execute(
                "SELECT update_id, body, attempts FROM inbox WHERE person_id = ? "
                "ORDER BY of_money DESC, update_id LIMIT 1",
                (person_id,),
            ).fetchone()
            if row is None:
                return None
            if row["attempts"]:
                return Waiting(row["update_id"], person_id, row["body"], row["attempts"], suspect=True)
            connection.execute("UPDATE inbox SET attempts = 1 WHERE update_id = ?", (row["update_id"],))
            return Waiting(row["update_id"], person_id, row["body"], attempts=1, suspect=False)

        return await self._database.run(work)

    async def begin_again(self, update_id: int) -> None:
        """Count one more attempt."""
        await self._database.run(
            lambda connection: connection.execute(
                "UPDATE inbox SET attempts = attempts + 1 WHERE update_id = ?", (update_id,)
            )
        )

    async def not_begun(self, update_id: int) -> None:
        """Take back the count of an attempt."""
        await self._database.run(
            lambda connection: connection.execute(
                "UPDATE inbox SET attempts = attempts - 1 WHERE update_id = ?", (update_id,)
            )
        )

    async def done(self, update_id: int) -> None:
        """Remove an update that was handled."""
        await self._database.run(
            lambda connection: connection.execute("DELETE FROM inbox WHERE update_id = ?", (update_id,))
        )

    async def next_update_id(self) -> int:
        """The id after the newest update of the last day; 0 without any, since Telegram may have restarted the ids."""
        since = now().timestamp() - RENUMBERED_AFTER_S

        def work(connection: sqlite3.Connection) -> int:
            newest = connection.execute("SELECT max(update_id) FROM received WHERE at >= ?", (since,)).fetchone()[0]
            return 0 if newest is None else int(newest) + 1

        return await self._database.run(work)

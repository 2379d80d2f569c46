"""What has to be done to a copy of the embedded broker's file before others go on with it."""

import sqlite3
from contextlib import closing
from pathlib import Path


def let_go(path: Path) -> None:
    """Forget who was there: what they had in their hands waits in its queue again, and counts as not yet delivered."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE message SET receiver = NULL, attempts = max(attempts - 1, 0) WHERE receiver IS NOT NULL"
        )
        for table in ("receiver", "listener", "event"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        connection.execute("COMMIT")

"""What the embedded broker says to SQLite. Every function runs inside one transaction, which its caller opens."""

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from foretell.broker.port import QueueDepth
from foretell.contracts import queues

_DEAD = queues.dead_queue("")
#: Events older than this are of no use to anybody.
EVENT_AGE_S = 60.0
MAX_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """One message, as claimed."""

    id: int
    attempts: int
    message_id: str
    headers: Mapping[str, str]
    body: bytes


def is_dead_letter_queue(queue: str) -> bool:
    return queue.endswith(_DEAD)


def declare(connection: sqlite3.Connection, queue: str) -> None:
    names = [queue] if is_dead_letter_queue(queue) else [queue, queues.dead_queue(queue)]
    connection.executemany("INSERT OR IGNORE INTO queue VALUES (?)", [(name,) for name in names])


def exists(connection: sqlite3.Connection, queue: str) -> bool:
    return connection.execute("SELECT 1 FROM queue WHERE name = ?", (queue,)).fetchone() is not None


def insert(
    connection: sqlite3.Connection, queue: str, body: bytes, message_id: str, headers: Mapping[str, str] | None
) -> None:
    cursor = connection.execute("INSERT INTO message (queue) VALUES (?)", (queue,))
    connection.execute(
        "INSERT INTO payload VALUES (?, ?, ?, ?)",
        (cursor.lastrowid, message_id, json.dumps(dict(headers)) if headers else None, body),
    )


def any_ready(connection: sqlite3.Connection, queue: str) -> bool:
    found = connection.execute("SELECT 1 FROM message WHERE queue = ? AND receiver IS NULL LIMIT 1", (queue,))
    return found.fetchone() is not None


def claim(connection: sqlite3.Connection, queue: str, receiver: str, limit: int) -> list[Row]:
    """Take the oldest `limit` ready messages."""
    claimed = connection.execute(
        "UPDATE message SET receiver = ?, attempts = attempts + 1 WHERE id IN"
        " (SELECT id FROM message WHERE queue = ? AND receiver IS NULL ORDER BY id LIMIT ?) RETURNING id, attempts",
        (receiver, queue, limit),
    ).fetchall()
    rows = []
    for number, attempts in sorted(claimed):
        message_id, headers, body = connection.execute(
            "SELECT message_id, headers, body FROM payload WHERE id = ?", (number,)
        ).fetchone()
        rows.append(Row(number, attempts, message_id, json.loads(headers) if headers else {}, body))
    return rows


def delete(connection: sqlite3.Connection, receiver: str, ids: Iterable[int]) -> None:
    """Forget these messages, where they still are in the hands of `receiver`."""
    for number in ids:
        deleted = connection.execute("DELETE FROM message WHERE id = ? AND receiver = ?", (number, receiver))
        if deleted.rowcount:
            connection.execute("DELETE FROM payload WHERE id = ?", (number,))


def bury(connection: sqlite3.Connection, receiver: str, ids: Iterable[int]) -> set[str]:
    """Move these messages to their dead-letter queues. Returns the queues that got something."""
    touched = set()
    discarded = []
    for number in ids:
        held = connection.execute("SELECT queue FROM message WHERE id = ? AND receiver = ?", (number, receiver))
        row = held.fetchone()
        if row is None:
            continue
        (queue,) = row
        if is_dead_letter_queue(queue):
            discarded.append(number)
            continue
        dead = queues.dead_queue(queue)
        connection.execute("UPDATE message SET queue = ?, receiver = NULL, attempts = 0 WHERE id = ?", (dead, number))
        touched.add(dead)
    delete(connection, receiver, discarded)
    return touched


def give_back(
    connection: sqlite3.Connection, receiver: str, delivery_limit: int, ids: Iterable[int] | None = None
) -> set[str]:
    """Return messages of `receiver` (all, or those of `ids`) to their queues, or bury those that had their attempts.

    Returns the queues that got something.
    """
    held = connection.execute("SELECT id, queue, attempts FROM message WHERE receiver = ?", (receiver,)).fetchall()
    chosen = None if ids is None else set(ids)
    touched, spent = set(), []
    for number, queue, attempts in held:
        if chosen is not None and number not in chosen:
            continue
        if attempts >= delivery_limit and not is_dead_letter_queue(queue):
            spent.append(number)
            continue
        connection.execute("UPDATE message SET receiver = NULL WHERE id = ?", (number,))
        touched.add(queue)
    return touched | bury(connection, receiver, spent)


def give_back_untouched(connection: sqlite3.Connection, receiver: str, ids: Iterable[int]) -> set[str]:
    """Return these messages of `receiver` to their queues without counting an attempt. Returns the queues."""
    touched = set()
    for number in ids:
        touched |= {
            queue
            for (queue,) in connection.execute(
                "UPDATE message SET receiver = NULL, attempts = attempts - 1 WHERE id = ? AND receiver = ?"
                " RETURNING queue",
                (number, receiver),
            )
        }
    return touched


def depth(connection: sqlite3.Connection, queue: str) -> QueueDepth | None:
    """The depth of `queue`; None when there is no such queue."""
    if not exists(connection, queue):
        return None
    ready, held, consumers = connection.execute(
        "SELECT (SELECT count(*) FROM message WHERE queue = :queue AND receiver IS NULL),"
        " (SELECT count(*) FROM message WHERE queue = :queue AND receiver IS NOT NULL),"
        " (SELECT count(*) FROM listener WHERE source = :queue)",
        {"queue": queue},
    ).fetchone()
    return QueueDepth(queue=queue, ready=ready, consumers=consumers, unacknowledged=held)


def lease_clock_s() -> float:
    """The clock of leases and events: all processes of this machine see the same, and nobody sets it.

    It begins anew when the machine does. Receivers of before have no bell that answers any more, and events of
    before are trimmed by their number.
    """
    return time.monotonic()


def enter(connection: sqlite3.Connection, receiver: str) -> None:
    """Begin the lease of `receiver`."""
    connection.execute("INSERT OR REPLACE INTO receiver VALUES (?, ?)", (receiver, lease_clock_s()))


def renew(connection: sqlite3.Connection, receiver: str) -> bool:
    """Renew the lease; False when it had expired and others have taken the messages."""
    renewed = connection.execute("UPDATE receiver SET seen_at = ? WHERE name = ?", (lease_clock_s(), receiver))
    return renewed.rowcount == 1


def leave(connection: sqlite3.Connection, receiver: str, delivery_limit: int) -> set[str]:
    """Strike out `receiver` and return what it held. Returns the queues that got something."""
    connection.execute("DELETE FROM receiver WHERE name = ?", (receiver,))
    connection.execute("DELETE FROM listener WHERE receiver = ?", (receiver,))
    return give_back(connection, receiver, delivery_limit)


def others(connection: sqlite3.Connection, receiver: str) -> list[tuple[str, float]]:
    """The other receivers, and when their leases were renewed."""
    return connection.execute("SELECT name, seen_at FROM receiver WHERE name <> ?", (receiver,)).fetchall()


def listen(connection: sqlite3.Connection, source: str, receiver: str, number: int) -> None:
    connection.execute("INSERT OR REPLACE INTO listener VALUES (?, ?, ?)", (source, receiver, number))


def unlisten(connection: sqlite3.Connection, source: str, receiver: str, number: int) -> None:
    connection.execute(
        "DELETE FROM listener WHERE source = ? AND receiver = ? AND number = ?", (source, receiver, number)
    )


def listeners(connection: sqlite3.Connection, source: str) -> list[str]:
    """The names of the receivers that listen to `source`."""
    found = connection.execute("SELECT DISTINCT receiver FROM listener WHERE source = ?", (source,))
    return [name for (name,) in found]


def last_event(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()
    return int(number)


def insert_event(connection: sqlite3.Connection, source: str, body: bytes) -> None:
    connection.execute(
        "INSERT INTO event (source, body, published_at) VALUES (?, ?, ?)",
        (source, body, lease_clock_s()),
    )


def events_after(connection: sqlite3.Connection, source: str, number: int) -> list[tuple[int, bytes]]:
    return connection.execute(
        "SELECT id, body FROM event WHERE id > ? AND source = ? ORDER BY id LIMIT 1000", (number, source)
    ).fetchall()


def trim_events(connection: sqlite3.Connection) -> None:
    # The newest row stays, so that identifiers go on growing: a subscriber remembers the last one it saw.
    connection.execute(
        "DELETE FROM event WHERE id < (SELECT max(id) FROM event)"
        " AND (published_at < ? OR id <= (SELECT max(id) FROM event) - ?)",
        (lease_clock_s() - EVENT_AGE_S, MAX_EVENTS),
    )

"""The hot statements for SQLite: prepared once by the driver, run for each row inside one transaction.

SQLite has one writer at a time, and `BEGIN IMMEDIATE` takes the write lock: rows read here can't change before commit.
Identifiers are stored as 32 hexadecimal digits and times as microseconds, as SQLAlchemy and `Moment` store them.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from foretell.domain.predictions.store import Earlier, Ending, Submission, Told
from foretell.kit.clock import uuid7
from foretell.kit.database import to_microseconds
from foretell.kit.drivers import SqliteDriver

_EARLIER = "SELECT id, request_hash, status FROM predictions WHERE user_id = ? AND idempotency_key = ?"
_AVAILABLE = "SELECT available FROM wallets WHERE user_id = ?"
_INSERT = """
INSERT INTO predictions (
    id, user_id, model, version, pool, stage, input, price_credits, status, created_at, expires_at,
    idempotency_key, request_hash, webhook
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)
"""
_HOLD = "UPDATE wallets SET available = available - ?1, held = held + ?1 WHERE user_id = ?2 AND available >= ?1"
_ENTER = "INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at) VALUES (?, ?, ?, ?, ?)"
_MARK_PUBLISHED = "UPDATE predictions SET published_at = ? WHERE id = ? AND status = 'queued'"
_SETTLE = """
UPDATE predictions SET
    status = ?, output = ?, error_code = ?, error_message = ?, worker_id = ?, started_at = ?, finished_at = ?,
    published_at = coalesce(published_at, ?)
WHERE id = ? AND status = 'queued'
RETURNING user_id, price_credits, webhook
"""
_RESOLVE = """
UPDATE wallets SET held = held - ?, available = available + ? WHERE user_id = ?
RETURNING available, held, listening, last_event, low_threshold
"""
_TELL = "INSERT INTO events (user_id, sequence, id, type, data, webhook, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
_COUNT = "UPDATE wallets SET last_event = ? WHERE user_id = ?"
_WAKE = "INSERT INTO event_wakes (user_id, after, upto, webhooks) VALUES (?, ?, ?, ?)"


class SqliteStore:
    """`Store` on SQLite."""

    def __init__(self, driver: SqliteDriver, told: Told = lambda _: None) -> None:
        """`told` is called with the users for whom a settlement wrote events."""
        self._driver = driver
        self._told = told

    async def accept(self, submissions: Sequence[Submission]) -> Collection[UUID]:
        return await self._driver.run(lambda connection: _accept(connection, submissions))

    async def explain(
        self, refused: Sequence[Submission]
    ) -> tuple[Mapping[tuple[UUID, str], Earlier], Mapping[UUID, int]]:
        return await self._driver.run(lambda connection: _explain(connection, refused))

    async def mark_published(self, ids: Sequence[UUID], published_at: datetime) -> None:
        moment = to_microseconds(published_at)
        rows = [(moment, identifier.hex) for identifier in ids]
        await self._driver.run(lambda connection: connection.executemany(_MARK_PUBLISHED, rows))

    async def settle(self, endings: Sequence[Ending], finished_at: datetime) -> Collection[UUID]:
        settled, told = await self._driver.run(
            lambda connection: _settle(connection, endings, to_microseconds(finished_at))
        )
        if told:
            self._told(told)
        return settled


def _accept(connection: sqlite3.Connection, submissions: Sequence[Submission]) -> Collection[UUID]:
    available: dict[UUID, int] = {}
    spent: dict[UUID, int] = {}
    accepted: list[Submission] = []
    for s in submissions:
        key = s.idempotency_key
        if key is not None and connection.execute(_EARLIER, (s.user_id.hex, key)).fetchone():
            continue
        if s.user_id not in available:
            wallet = connection.execute(_AVAILABLE, (s.user_id.hex,)).fetchone()
            # A user without a wallet gets a negative balance, so that even a free prediction is refused.
            available[s.user_id] = wallet[0] if wallet else -1
        total = spent.get(s.user_id, 0) + s.price_credits
        if total <= available[s.user_id]:
            spent[s.user_id] = total
            accepted.append(s)
    times = [(to_microseconds(s.created_at), to_microseconds(s.expires_at)) for s in accepted]
    connection.executemany(
        _INSERT,
        [
            (
                s.id.hex,
                s.user_id.hex,
                s.model,
                s.version,
                s.pool,
                s.stage,
                s.payload.decode(),
                s.price_credits,
                created_at,
                expires_at,
                s.idempotency_key,
                s.request_hash,
                s.webhook,
            )
            for s, (created_at, expires_at) in zip(accepted, times, strict=True)
        ],
    )
    for user_id, total in spent.items():
        if connection.execute(_HOLD, (total, user_id.hex)).rowcount != 1:
            raise RuntimeError("a wallet changed inside our own transaction")
    connection.executemany(
        _ENTER,
        [
            (s.user_id.hex, "hold", s.price_credits, s.id.hex, created_at)
            for s, (created_at, _) in zip(accepted, times, strict=True)
        ],
    )
    return {s.id for s in accepted}


def _explain(
    connection: sqlite3.Connection, refused: Sequence[Submission]
) -> tuple[Mapping[tuple[UUID, str], Earlier], Mapping[UUID, int]]:
    earlier: dict[tuple[UUID, str], Earlier] = {}
    available: dict[UUID, int] = {}
    for s in refused:
        if s.idempotency_key is not None:
            row = connection.execute(_EARLIER, (s.user_id.hex, s.idempotency_key)).fetchone()
            if row:
                earlier[s.user_id, s.idempotency_key] = Earlier(UUID(hex=row[0]), row[1], row[2])
        wallet = connection.execute(_AVAILABLE, (s.user_id.hex,)).fetchone()
        if wallet:
            available[s.user_id] = wallet[0]
    return earlier, available


@dataclass(slots=True)
class _Account:
    """The predictions of one user that a settlement ended: prices, and (id, webhook) of each."""

    total: int = 0
    returned: int = 0
    ended: list[tuple[UUID, str | None]] = field(default_factory=list)
    webhooks: bool = False


def _settle(
    connection: sqlite3.Connection, endings: Sequence[Ending], finished_at: int
) -> tuple[set[UUID], list[UUID]]:
    """Returns the ended ids, and the users for whom events were written."""
    settled: set[UUID] = set()
    accounts: dict[str, _Account] = defaultdict(_Account)
    entries = []
    for e in endings:
        row = connection.execute(
            _SETTLE,
            (
                "succeeded" if e.error is None else "failed",
                None if e.output is None else e.output.decode(),
                None if e.error is None else e.error.code,
                None if e.error is None else e.error.message,
                e.worker_id,
                None if e.started_at is None else to_microseconds(e.started_at),
                finished_at,
                None if e.published_at is None else to_microseconds(e.published_at),
                e.id.hex,
            ),
        ).fetchone()
        if row is None:
            continue
        user_id, price, webhook = row
        settled.add(e.id)
        account = accounts[user_id]
        account.total += price
        if e.error is not None:
            account.returned += price
        account.ended.append((e.id, webhook))
        if webhook is not None:
            account.webhooks = True
        entries.append((user_id, "capture" if e.error is None else "release", price, e.id.hex, finished_at))
    told = [
        UUID(hex=user_id)
        for user_id, account in accounts.items()
        if _resolve(connection, user_id, account, finished_at)
    ]
    connection.executemany(_ENTER, entries)
    return settled, told


def _resolve(connection: sqlite3.Connection, user_id: str, account: _Account, finished_at: int) -> bool:
    """Change the wallet, and write events if there is a receiver; returns whether there are any."""
    # All rows are fetched, because the statement is complete only after the last one.
    for row in connection.execute(_RESOLVE, (account.total, account.returned, user_id)).fetchall():
        available, held, listening, last_event, low_threshold = row
        if listening or account.webhooks:
            ended = sorted(account.ended)
            told = [each for each in ended if listening or each[1] is not None]
            events: list[tuple[str, str, str | None, str | None]] = [
                (identifier.hex, "prediction.finished", None, webhook) for identifier, webhook in told
            ]
            left = available + held
            spent = account.total - account.returned
            if listening and low_threshold is not None and left < low_threshold <= left + spent:
                data = {"available": available, "held": held, "threshold": low_threshold}
                events.append((uuid7().hex, "balance.low", json.dumps(data), None))
            connection.executemany(
                _TELL,
                [
                    (user_id, sequence, *event, finished_at)
                    for sequence, event in enumerate(events, start=last_event + 1)
                ],
            )
            upto = last_event + len(events)
            connection.execute(_COUNT, (upto, user_id))
            connection.execute(_WAKE, (user_id, last_event, upto, account.webhooks))
            return True
    return False

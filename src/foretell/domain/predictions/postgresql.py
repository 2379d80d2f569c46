"""The hot statements for PostgreSQL: each batch is one statement, and so one round trip and one commit."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from foretell.domain.predictions.store import Earlier, Ending, Submission
from foretell.kit.drivers import PostgresqlDriver

# Wallets are locked first and in user order, by settlement too, so that two batches never wait for each other.
# Under READ COMMITTED, `FOR UPDATE` reads the newest wallet even if it had to wait for it. What becomes of the wallet
# is reckoned from that reading: `SET available = available - total` would first try the wallet as it was when the
# statement began, and where others have given credits back meanwhile, the table's check refuses the whole batch.
_ACCEPT = """
WITH item AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[],
        $9::timestamptz[], $10::timestamptz[], $11::text[], $12::bytea[]
    ) WITH ORDINALITY AS item (
        id, user_id, model, version, pool, stage, input, price, created_at, expires_at, key, hash, position
    )
), wallet AS MATERIALIZED (
    SELECT user_id, available, held FROM wallets
    WHERE user_id IN (SELECT user_id FROM item) ORDER BY user_id FOR UPDATE
), fresh AS (
    SELECT item.*, sum(price) OVER (PARTITION BY user_id ORDER BY position) AS running_price
    FROM item
    WHERE key IS NULL OR NOT EXISTS (
        SELECT FROM predictions p WHERE p.user_id = item.user_id AND p.idempotency_key = item.key
    )
), accepted AS (
    INSERT INTO predictions (
        id, user_id, model, version, pool, stage, input, price_credits, status, created_at, expires_at,
        idempotency_key, request_hash
    )
    SELECT id, user_id, model, version, pool, stage, input::json, price, 'queued', created_at, expires_at, key, hash
    FROM fresh JOIN wallet USING (user_id)
    WHERE running_price <= available
    ORDER BY position
    ON CONFLICT (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id, user_id, price_credits, created_at
), held AS (
    UPDATE wallets SET available = wallet.available - total, held = wallet.held + total
    FROM (SELECT user_id, sum(price_credits) AS total FROM accepted GROUP BY user_id) spent JOIN wallet USING (user_id)
    WHERE wallets.user_id = spent.user_id
), entered AS (
    INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at)
    SELECT user_id, 'hold', price_credits, id, created_at FROM accepted
)
SELECT id FROM accepted
"""

_EARLIER = """
SELECT p.user_id, p.idempotency_key, p.id, p.request_hash, p.status
FROM unnest($1::uuid[], $2::text[]) AS asked (user_id, key)
JOIN predictions p ON p.user_id = asked.user_id AND p.idempotency_key = asked.key
"""

_AVAILABLE = "SELECT user_id, available FROM wallets WHERE user_id = ANY($1::uuid[])"

# Rows that settlement holds at this moment are passed over: settlement writes published_at itself.
_MARK_PUBLISHED = """
UPDATE predictions SET published_at = $2
WHERE id IN (
    SELECT id FROM predictions
    WHERE id = ANY($1::uuid[]) AND status = 'queued'
    ORDER BY id FOR UPDATE SKIP LOCKED
)
"""

# Predictions are locked in the order of their ids and wallets in the order of users, so that two dispatchers that got
# the same results wait for each other instead of deadlocking; the one that comes second finds nothing queued.
_SETTLE = """
WITH ending AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[]
    ) AS ending (id, output, error_code, error_message, worker_id, published_at, started_at)
), claimed AS MATERIALIZED (
    SELECT p.id FROM predictions p
    WHERE p.id = ANY($1::uuid[]) AND p.status = 'queued'
    ORDER BY p.id FOR UPDATE
), settled AS (
    UPDATE predictions p SET
        status = CASE WHEN ending.error_code IS NULL THEN 'succeeded' ELSE 'failed' END,
        output = ending.output::json, error_code = ending.error_code, error_message = ending.error_message,
        worker_id = ending.worker_id, started_at = ending.started_at, finished_at = $8,
        published_at = coalesce(p.published_at, ending.published_at)
    FROM claimed JOIN ending USING (id)
    WHERE p.id = claimed.id AND p.status = 'queued'
    RETURNING p.id, p.user_id, p.price_credits, p.status
), wallet AS MATERIALIZED (
    SELECT user_id, available, held FROM wallets
    WHERE user_id IN (SELECT user_id FROM settled) ORDER BY user_id FOR UPDATE
), resolved AS (
    UPDATE wallets SET held = wallet.held - total, available = wallet.available + returned
    FROM (
        SELECT user_id, sum(price_credits) AS total,
            coalesce(sum(price_credits) FILTER (WHERE status <> 'succeeded'), 0) AS returned
        FROM settled GROUP BY user_id
    ) spent JOIN wallet USING (user_id)
    WHERE wallets.user_id = spent.user_id
), entered AS (
    INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at)
    SELECT user_id, CASE status WHEN 'succeeded' THEN 'capture' ELSE 'release' END, price_credits, id, $8
    FROM settled
)
SELECT id FROM settled
"""


class PostgresqlStore:
    """`Store` on PostgreSQL."""

    def __init__(self, driver: PostgresqlDriver) -> None:
        self._driver = driver

    async def accept(self, submissions: Sequence[Submission]) -> Collection[UUID]:
        columns: list[list[Any]] = [
            [s.id for s in submissions],
            [s.user_id for s in submissions],
            [s.model for s in submissions],
            [s.version for s in submissions],
            [s.pool for s in submissions],
            [s.stage for s in submissions],
            [s.payload.decode() for s in submissions],
            [s.price_credits for s in submissions],
            [s.created_at for s in submissions],
            [s.expires_at for s in submissions],
            [s.idempotency_key for s in submissions],
            [s.request_hash for s in submissions],
        ]
        rows = await self._driver.run(lambda connection: connection.fetch(_ACCEPT, *columns))
        return {row[0] for row in rows}

    async def explain(
        self, refused: Sequence[Submission]
    ) -> tuple[Mapping[tuple[UUID, str], Earlier], Mapping[UUID, int]]:
        keyed = [s for s in refused if s.idempotency_key is not None]
        users = list({s.user_id for s in refused})
        earlier = await self._driver.run(
            lambda connection: connection.fetch(
                _EARLIER, [s.user_id for s in keyed], [s.idempotency_key for s in keyed]
            )
        )
        available = await self._driver.run(lambda connection: connection.fetch(_AVAILABLE, users))
        return (
            {(row[0], row[1]): Earlier(row[2], row[3], row[4]) for row in earlier},
            {row[0]: row[1] for row in available},
        )

    async def mark_published(self, ids: Sequence[UUID], published_at: datetime) -> None:
        await self._driver.run(lambda connection: connection.execute(_MARK_PUBLISHED, ids, published_at))

    async def settle(self, endings: Sequence[Ending], finished_at: datetime) -> Collection[UUID]:
        columns: list[list[Any]] = [
            [e.id for e in endings],
            [None if e.output is None else e.output.decode() for e in endings],
            [None if e.error is None else e.error.code for e in endings],
            [None if e.error is None else e.error.message for e in endings],
            [e.worker_id for e in endings],
            [e.published_at for e in endings],
            [e.started_at for e in endings],
        ]
        rows = await self._driver.run(lambda connection: connection.fetch(_SETTLE, *columns, finished_at))
        return {row[0] for row in rows}

"""The hot statements for PostgreSQL: each batch is one statement, and so one round trip and one commit."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from foretell.domain.predictions.store import Earlier, Ending, Submission, Told
from foretell.kit.drivers import PostgresqlDriver

# Statistics are always late, and plans are kept for long: a plan for an empty table is later used with millions of
# rows. So these statements leave the planner no choice wherever cost grows with the history or the batch:
# - Each row has its own look-up, `LATERAL (... ORDER BY key LIMIT 1)`. The planner can't turn it into another kind of
#   join, and only the index of that key has this order. The condition is a range from the key to the key, not an
#   equality: an equality needs no order, and then all indexes cost the same on a table that is believed to be empty.
# - Updates name their rows by `= ANY (ARRAY[key])` or such a range, which allows only a nested loop from the batch to
#   the table. They also give the user, so that an index that begins with the user is possible, too.
# - Queued predictions are selected by `finished_at IS NULL`, which a CHECK makes equivalent: `status = 'queued'` would
#   allow `ix_predictions_queued`, which looks cheap but may have half a million dead entries.
# - Parts of a batch are not joined with each other: the planner assumes ten rows and would use nested loops.

# Wallets are locked first and in user order, also by settlement, so that two batches can't deadlock.
# Under READ COMMITTED, `FOR UPDATE` reads the newest wallet even if it had to wait for it. The new values are computed
# from that row. `SET available = available - total` would first evaluate the wallet as of the start of the statement;
# if credits were returned since then, the table's check would refuse the whole batch.
# Each item refers to its payer by the position in the sorted array of users.
_ACCEPT_TEMPLATE = """
WITH item AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[],
        $9::timestamptz[], $10::timestamptz[], $11::text[], $12::bytea[], $13::integer[]{unnested}
    ) WITH ORDINALITY AS item (
        id, user_id, model, version, pool, stage, input, price, created_at, expires_at, key, hash, payer{webhook},
        position
    )
), purse AS MATERIALIZED (
    SELECT coalesce(wallet.available, -1) AS available
    FROM unnest($14::uuid[]) AS payer (user_id) LEFT JOIN LATERAL (
        SELECT available FROM wallets WHERE user_id = payer.user_id LIMIT 1 FOR UPDATE
    ) wallet ON true
), fresh AS (
    SELECT item.*, sum(price) OVER (PARTITION BY user_id ORDER BY position) AS running_price
    FROM item LEFT JOIN LATERAL (
        SELECT p.id FROM predictions p
        WHERE p.user_id = item.user_id AND p.idempotency_key >= item.key AND p.idempotency_key <= item.key
        ORDER BY p.idempotency_key LIMIT 1
    ) earlier ON true
    WHERE earlier.id IS NULL
), accepted AS (
    INSERT INTO predictions (
        id, user_id, model, version, pool, stage, input, price_credits, status, created_at, expires_at,
        idempotency_key, request_hash{webhook}
    )
    SELECT id, user_id, model, version, pool, stage, input::json, price, 'queued', created_at, expires_at, key, hash
        {webhook}
    FROM fresh
    WHERE running_price <= (ARRAY(SELECT available FROM purse))[payer]
    ORDER BY position
    ON CONFLICT (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id, user_id, price_credits, created_at
), spent AS (
    SELECT user_id, sum(price_credits) AS total FROM accepted GROUP BY user_id
), wallet AS MATERIALIZED (
    SELECT spent.*, wallet.* FROM spent CROSS JOIN LATERAL (
        SELECT available, held FROM wallets WHERE user_id = spent.user_id LIMIT 1 FOR UPDATE
    ) wallet
), held AS (
    UPDATE wallets SET available = wallet.available - total, held = wallet.held + total
    FROM wallet WHERE wallets.user_id = ANY (ARRAY[wallet.user_id])
), entered AS (
    INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at)
    SELECT user_id, 'hold', price_credits, id, created_at FROM accepted
)
SELECT id FROM accepted
"""
# Few batches have a prediction with its own webhook; the others use the shorter statement without that column.
_ACCEPT = _ACCEPT_TEMPLATE.format(unnested="", webhook="")
_ACCEPT_WITH_WEBHOOKS = _ACCEPT_TEMPLATE.format(unnested=", $15::text[]", webhook=", webhook")

_EARLIER = """
SELECT asked.user_id, asked.key, earlier.id, earlier.request_hash, earlier.status
FROM unnest($1::uuid[], $2::text[]) AS asked (user_id, key) CROSS JOIN LATERAL (
    SELECT p.id, p.request_hash, p.status FROM predictions p
    WHERE p.user_id = asked.user_id AND p.idempotency_key >= asked.key AND p.idempotency_key <= asked.key
    ORDER BY p.idempotency_key LIMIT 1
) earlier
"""

_AVAILABLE = "SELECT user_id, available FROM wallets WHERE user_id = ANY($1::uuid[])"

# Rows that a settlement has locked are skipped: settlement writes published_at itself.
_MARK_PUBLISHED = """
WITH found AS MATERIALIZED (
    SELECT prediction.* FROM unnest($1::uuid[]) AS published (id) CROSS JOIN LATERAL (
        SELECT p.id, p.user_id, p.finished_at FROM predictions p
        WHERE p.id >= published.id AND p.id <= published.id ORDER BY p.id LIMIT 1 FOR UPDATE SKIP LOCKED
    ) prediction
)
UPDATE predictions p SET published_at = $2
FROM found
WHERE found.finished_at IS NULL AND p.finished_at IS NULL
    AND p.user_id = ANY (ARRAY[found.user_id]) AND p.id >= found.id AND p.id <= found.id
"""

# Predictions are locked in the order of their ids, and wallets in the order of users, so that two dispatchers with the
# same results wait for each other instead of deadlocking; the second one finds nothing queued.
# Events are written for users whose wallet says so (it is locked by then, so the value is current), and for predictions
# with their own webhook. If a batch has neither, only this condition is evaluated, once; the work for the events, such
# as sorting by user, is skipped.
_SETTLE = """
WITH ending AS MATERIALIZED (
    SELECT ending.*, prediction.user_id FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[]
    ) AS ending (id, output, error_code, error_message, worker_id, published_at, started_at) CROSS JOIN LATERAL (
        SELECT p.user_id, p.finished_at FROM predictions p
        WHERE p.id >= ending.id AND p.id <= ending.id ORDER BY p.id LIMIT 1
    ) prediction
    WHERE prediction.finished_at IS NULL
), settled AS (
    UPDATE predictions p SET
        status = CASE WHEN ending.error_code IS NULL THEN 'succeeded' ELSE 'failed' END,
        output = ending.output::json, error_code = ending.error_code, error_message = ending.error_message,
        worker_id = ending.worker_id, started_at = ending.started_at, finished_at = $8,
        published_at = coalesce(p.published_at, ending.published_at)
    FROM ending
    WHERE p.finished_at IS NULL
        AND p.user_id = ANY (ARRAY[ending.user_id]) AND p.id >= ending.id AND p.id <= ending.id
    RETURNING p.id, p.user_id, p.price_credits, p.status, p.webhook
), spent AS (
    SELECT user_id, sum(price_credits) AS total,
        coalesce(sum(price_credits) FILTER (WHERE status <> 'succeeded'), 0) AS returned,
        count(*) AS endings, count(webhook) AS webhooks
    FROM settled GROUP BY user_id ORDER BY user_id
), wallet AS MATERIALIZED (
    SELECT spent.*, wallet.*, CASE WHEN listening THEN endings ELSE webhooks END AS told,
        (listening AND available + held >= low_threshold
            AND available + held + returned - total < low_threshold) IS TRUE AS low
    FROM spent CROSS JOIN LATERAL (
        SELECT available, held, listening, last_event, low_threshold
        FROM wallets WHERE user_id = spent.user_id LIMIT 1 FOR UPDATE
    ) wallet
), resolved AS (
    UPDATE wallets SET held = wallet.held - total, available = wallet.available + returned,
        last_event = wallet.last_event + told + low::integer
    FROM wallet WHERE wallets.user_id = ANY (ARRAY[wallet.user_id])
), ended AS (
    INSERT INTO events (user_id, sequence, id, type, webhook, created_at)
    SELECT user_id, (ARRAY(SELECT last_event FROM wallet ORDER BY user_id))[place]
            + row_number() OVER (PARTITION BY user_id ORDER BY id),
        id, 'prediction.finished', webhook, $8
    FROM (
        SELECT id, user_id, webhook, dense_rank() OVER (ORDER BY user_id) AS place FROM settled
        WHERE (SELECT bool_or(told > 0) FROM wallet)
    ) placed
    WHERE webhook IS NOT NULL OR (ARRAY(SELECT listening FROM wallet ORDER BY user_id))[place]
), lowered AS (
    INSERT INTO events (user_id, sequence, id, type, data, created_at)
    SELECT user_id, last_event + told + 1, gen_random_uuid(), 'balance.low',
        json_build_object('available', available + returned, 'held', held - total, 'threshold', low_threshold), $8
    FROM wallet WHERE low
), woken AS (
    INSERT INTO event_wakes (user_id, after, upto, webhooks)
    SELECT user_id, last_event, last_event + told + low::integer, webhooks > 0 FROM wallet WHERE told > 0
    RETURNING user_id
), entered AS (
    INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at)
    SELECT user_id, CASE status WHEN 'succeeded' THEN 'capture' ELSE 'release' END, price_credits, id, $8
    FROM settled
)
SELECT id, false FROM settled UNION ALL SELECT user_id, true FROM woken
"""


class PostgresqlStore:
    """`Store` on PostgreSQL."""

    def __init__(self, driver: PostgresqlDriver, told: Told = lambda _: None) -> None:
        """`told` is called with the users for whom a settlement wrote events."""
        self._driver = driver
        self._told = told

    async def accept(self, submissions: Sequence[Submission]) -> Collection[UUID]:
        users = sorted({s.user_id for s in submissions})
        place = {user_id: number for number, user_id in enumerate(users, start=1)}
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
            [place[s.user_id] for s in submissions],
            users,
        ]
        statement = _ACCEPT
        if any(s.webhook is not None for s in submissions):
            statement = _ACCEPT_WITH_WEBHOOKS
            columns.append([s.webhook for s in submissions])
        rows = await self._driver.run(lambda connection: connection.fetch(statement, *columns))
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
        await self._driver.run(lambda connection: connection.execute(_MARK_PUBLISHED, sorted(ids), published_at))

    async def settle(self, endings: Sequence[Ending], finished_at: datetime) -> Collection[UUID]:
        endings = sorted(endings, key=lambda ending: ending.id)
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
        settled = {row[0] for row in rows if not row[1]}
        if len(settled) < len(rows):
            self._told([row[0] for row in rows if row[1]])
        return settled

"""The audit: checks every rule about states and credits over the whole database.

Each check is one statement that returns the violations of a rule, with their ids. Expensive checks run only if a
cheaper statement could not prove, by counting, that they would find nothing (`STEPS`). Checks do not rely on
constraints, indexes or triggers, which may be missing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.predictions.audit_checks import CHECKS, KINDS, Check, movement


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation.

    `ids` identifies it: `prediction_id`, `user_id`, `ledger_id` or another key, with its value. `total` is the number
    of findings of its check; not all of them are listed.
    """

    check: str
    what: str
    ids: Mapping[str, str]
    expected: str
    found: str
    total: int


@dataclass(frozen=True, slots=True)
class Progress:
    """An audit begins step number `step` of `steps`. `rows`: the number of rows in the tables, once it is known."""

    step: int
    steps: int
    doing: str
    rows: int | None


async def audit(
    connection: AsyncConnection,
    *,
    limit_per_check: int = 20,
    parallel_workers: int = 0,
    tell: Callable[[Progress], None] = lambda _: None,
) -> list[Finding]:
    """All violations at one moment; an empty list proves that there are none.

    `connection` comes from `Database.snapshot()`, of a database `with_statement_timeout` of some minutes. At most
    `limit_per_check` findings of each check are listed, the lowest ids first. `parallel_workers`: how many additional
    processes PostgreSQL may use. `tell` is called before each step. Raises `ValueError` outside of a snapshot, where
    concurrent writes would look like violations.
    """
    if connection.dialect.name == "postgresql":
        isolation = await connection.scalar(text("SELECT current_setting('transaction_isolation')"))
        if isolation not in ("repeatable read", "serializable"):
            raise ValueError(f"an audit needs one moment of the database, and this transaction is {isolation}")
        for name, value in _SETTINGS.items() | {("max_parallel_workers_per_gather", str(parallel_workers))}:
            await connection.execute(text(f"SET LOCAL {name} = '{value}'"))
    findings: list[Finding] = []
    counted: Counted = {}
    for number, step in enumerate(STEPS, start=1):
        rows = counted["predictions"] + counted["movements"] if {"predictions", "movements"} <= counted.keys() else None
        tell(Progress(number, len(STEPS), step.doing, rows))
        if step.count is not None:
            query = step.count if isinstance(step.count, str) else step.count.get(connection.dialect.name)
            if query is not None:
                row = (await connection.execute(text(query))).mappings().one()
                counted |= {name: int(number or 0) for name, number in row.items()}
        for check in step.checks:
            if step.proves is None or not step.proves(counted):
                findings += await _breaches(connection, check, limit_per_check)
    return findings


async def _breaches(connection: AsyncConnection, check: Check, limit: int) -> list[Finding]:
    query = text(f"SELECT wrong.*, count(*) OVER () AS total FROM ({check.query}) wrong ORDER BY 1 LIMIT :limit")  # noqa: S608
    return [_finding(check, row) for row in (await connection.execute(query, {"limit": limit})).mappings()]


#: For one audit on PostgreSQL. With this a million predictions are hashed in memory; with the usual 4 MB they spill to
#: disk. Tables are scanned and hashed, not read by indexes, because statistics may be wrong and indexes broken.
_SETTINGS = {
    "work_mem": "256MB",
    "enable_nestloop": "off",
    "enable_mergejoin": "off",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
}


#: The counts of the steps of an audit, by name.
Counted = dict[str, int]


@dataclass(frozen=True, slots=True)
class Step:
    """Checks that are made together. If `proves` returns true for the counts so far, they are skipped, because they
    would find nothing. `count` returns one row of numbers, by name; it may be a different statement for each database,
    or none if an earlier step has counted this."""

    doing: str
    checks: tuple[Check, ...]
    count: str | Mapping[str, str] | None = None
    proves: Callable[[Counted], bool] | None = None


def _named(*names: str) -> tuple[Check, ...]:
    return tuple(check for check in CHECKS if check.name in names)


# One number for a row's prediction, owner and amount. If two tables have the same number of rows and the same sum of
# these numbers, they have the same rows in any order: otherwise the sums are equal with a chance of one in 2**64.
# Summing is a tenth of the work of joining. PostgreSQL itself hashes partitions with these functions; SQLite gets one
# that adds up, too (`kit/fingerprints.py`).
_FINGERPRINT = "uuid_hash_extended({prediction}, uuid_hash_extended(user_id, hashint8extended({amount}, 0)))"
_OF_PREDICTION = _FINGERPRINT.format(prediction="id", amount="price_credits")
_OF_MOVEMENT = _FINGERPRINT.format(prediction="prediction_id", amount="amount")
_SUM_OF_MOVEMENTS = "fingerprint(prediction_id || ' ' || user_id || ' ' || amount)"

_COUNT_PREDICTIONS = """
    SELECT count(*) AS predictions,
        count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE status IN ('failed', 'canceled')) AS exceptional,
        count(*) FILTER (WHERE price_credits >= 0) AS priced,
        count(idempotency_key) AS keys,
        count(*) FILTER (
            WHERE status IN ('queued', 'succeeded', 'failed', 'canceled')
                AND (status = 'queued') = (finished_at IS NULL)
                AND (status = 'succeeded') = (output IS NOT NULL)
                AND (status = 'failed') = (error_code IS NOT NULL)
        ) AS fitting,
        {hashed} AS hashed,
        {different},
        {sum} FILTER (WHERE status = 'queued') AS queued_due,
        {sum} FILTER (WHERE status = 'succeeded') AS captures_due,
        {sum} FILTER (WHERE status IN ('failed', 'canceled')) AS releases_due
    FROM {predictions}
"""
_COUNT_PREDICTIONS_OF = {
    # Different numbers belong to different rows; sorting and counting them takes a quarter of the time of grouping.
    "postgresql": _COUNT_PREDICTIONS.format(
        predictions=f"(SELECT *, {_OF_PREDICTION} AS fingerprint FROM predictions) predictions",  # noqa: S608
        sum="sum(fingerprint)",
        hashed="count(fingerprint)",
        different="""
            count(DISTINCT uuid_hash_extended(id, 0)) AS ids,
            count(DISTINCT uuid_hash_extended(user_id, hashtextextended(idempotency_key, 0))) AS different_keys
        """,
    ),
    # Both are in the order of an index.
    "sqlite": _COUNT_PREDICTIONS.format(
        predictions="predictions",
        sum="fingerprint(id || ' ' || user_id || ' ' || price_credits)",
        hashed="min(count(id), count(user_id), count(price_credits))",
        different="""
            (SELECT count(*) FROM (SELECT DISTINCT id FROM predictions)) AS ids,
            (SELECT count(*) FROM (SELECT DISTINCT user_id, idempotency_key FROM predictions
                WHERE idempotency_key IS NOT NULL)) AS different_keys
        """,
    ),
}

# The sum of each owner's rows, and how many owners have a different wallet. Rows are summed by kind first, which is a
# third of the work of computing the change of each row.
_COUNT_MOVEMENTS = f"""
    WITH entered AS (
        SELECT user_id, kind, sum(amount) AS amount, min(amount) AS lowest, count(*) AS movements,
            count(prediction_id) AS of_predictions {{fingerprint}}
        FROM {{ledger}} GROUP BY user_id, kind
    ), differing AS (
        SELECT user_id FROM (
            SELECT user_id, {movement(0)} AS available, {movement(1)} AS held, 0 AS wallet FROM entered
            UNION ALL
            SELECT user_id, -available, -held, 1 FROM wallets
        ) both_sides
        GROUP BY user_id HAVING sum(available) <> 0 OR sum(held) <> 0 OR sum(wallet) <> 1
    )
    SELECT coalesce(sum(movements), 0) AS movements,
        coalesce(sum(movements) FILTER (WHERE kind = 'hold'), 0) AS holds,
        coalesce(sum(movements) FILTER (WHERE kind = 'capture'), 0) AS captures,
        coalesce(sum(movements) FILTER (WHERE kind = 'release'), 0) AS releases,
        coalesce(sum(movements) FILTER (WHERE kind IN ({KINDS}) AND (lowest >= 0 OR kind = 'adjustment')), 0)
            AS possible,
        coalesce(sum(of_predictions) FILTER (WHERE kind NOT IN ('hold', 'capture', 'release')), 0) AS others,
        (SELECT count(*) FROM differing) AS wallets_differing
        {{fingerprints}}
    FROM entered
"""  # noqa: S608
_COUNT_MOVEMENTS_OF = {
    "postgresql": _COUNT_MOVEMENTS.format(
        ledger="ledger",
        fingerprint=f", sum({_OF_MOVEMENT}) AS fingerprint, count({_OF_MOVEMENT}) AS hashed",
        fingerprints="""
            , coalesce(sum(hashed) FILTER (WHERE kind IN ('hold', 'capture', 'release')), 0) AS movements_hashed
            , sum(fingerprint) FILTER (WHERE kind = 'hold') AS holds_entered
            , sum(fingerprint) FILTER (WHERE kind = 'capture') AS captures_entered
            , sum(fingerprint) FILTER (WHERE kind = 'release') AS releases_entered
        """,
    ),
    # In the order of the index by owner, SQLite would look up each row by itself: three times as much work as sorting.
    "sqlite": _COUNT_MOVEMENTS.format(ledger="ledger NOT INDEXED", fingerprint="", fingerprints=""),
}
# SQLite adds up fingerprints faster in one sum for each kind than in one for each owner.
_ADD_UP_MOVEMENTS = {
    "sqlite": f"""
        SELECT {_SUM_OF_MOVEMENTS} FILTER (WHERE kind = 'hold') AS holds_entered,
            {_SUM_OF_MOVEMENTS} FILTER (WHERE kind = 'capture') AS captures_entered,
            {_SUM_OF_MOVEMENTS} FILTER (WHERE kind = 'release') AS releases_entered,
            min(count(prediction_id), count(user_id), count(amount)) AS movements_hashed
        FROM ledger WHERE kind IN ('hold', 'capture', 'release')
    """,  # noqa: S608
}


def _every_movement_is_called_for(counted: Counted) -> bool:
    """Whether each prediction exists once and has exactly the movements of its status, and nothing else has any."""
    if counted["others"] or counted["wallets_differing"]:
        # The checks decide about movements of other kinds that name a prediction, and owners without a wallet.
        return False
    # Every prediction has a hold, and its owner a wallet.
    due = counted | {"holds_due": counted["queued_due"] + counted["captures_due"] + counted["releases_due"]}
    return (
        (counted["holds"], counted["captures"], counted["releases"])
        == (counted["predictions"], counted["succeeded"], counted["exceptional"])
        and counted["ids"] == counted["hashed"] == counted["fitting"] == counted["predictions"]
        and counted["movements_hashed"] == counted["holds"] + counted["captures"] + counted["releases"]
        # SQLite's sums are of 64 bits.
        and all((due[f"{kind}s_due"] - due[f"{kind}s_entered"]) % 2**64 == 0 for kind in ("hold", "capture", "release"))
    )


STEPS = (
    Step(
        "reading every prediction",
        _named("prediction_fits_status", "price_not_negative"),
        _COUNT_PREDICTIONS_OF,
        lambda counted: counted["fitting"] == counted["priced"] == counted["predictions"],
    ),
    Step(
        "adding up every movement",
        _named("ledger_row_possible", "wallet_matches_ledger"),
        _COUNT_MOVEMENTS_OF,
        lambda counted: counted["possible"] == counted["movements"] and counted["wallets_differing"] == 0,
    ),
    Step(
        "looking through users and wallets", _named("wallet_not_negative", "wallet_of_everyone", "wallet_holds_queued")
    ),
    Step(
        "comparing every prediction with its movements",
        _named("ledger_fits_status", "ledger_matches_prediction", "prediction_stands_once", "prediction_has_wallet"),
        _ADD_UP_MOVEMENTS,
        _every_movement_is_called_for,
    ),
    Step(
        "looking for idempotency keys used twice",
        _named("idempotency_key_used_once"),
        proves=lambda counted: counted["different_keys"] == counted["keys"],
    ),
    Step("looking for references used twice", _named("reference_used_once")),
    Step(
        "comparing payments in Stars with their movements",
        _named("payment_has_movements"),
        "SELECT count(*) AS payments FROM telegram_payments",
        lambda counted: counted["payments"] == 0,
    ),
)


def _finding(check: Check, row: Mapping[Any, Any]) -> Finding:
    ids = {name: _shown(name, row[name]) for name in row if name not in ("expected", "found", "total")}
    return Finding(
        check=check.name,
        what=check.what,
        ids={name: value for name, value in ids.items() if value is not None},
        expected=str(row["expected"]),
        found=str(row["found"]),
        total=row["total"],
    )


def _shown(name: str, value: Any) -> str | None:
    if value is None:
        return None
    # SQLite stores a UUID as 32 digits; show it in the usual form, so that people can search for it.
    is_uuid = name in ("prediction_id", "user_id") and isinstance(value, str)
    return str(UUID(hex=value)) if is_uuid else str(value)

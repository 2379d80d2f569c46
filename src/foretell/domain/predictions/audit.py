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
                counted |= {name: int(number) for name, number in row.items()}
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
# Summing is a tenth of the work of joining. PostgreSQL itself hashes partitions with these functions. Different numbers
# belong to different rows; sorting and counting them takes a quarter of the time of grouping.
_FINGERPRINT = "uuid_hash_extended({prediction}, uuid_hash_extended(user_id, hashint8extended({amount}, 0)))"
_OF_PREDICTION = _FINGERPRINT.format(prediction="id", amount="price_credits")
_OF_MOVEMENT = _FINGERPRINT.format(prediction="prediction_id", amount="amount")

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
        ) AS fitting
        {fingerprints}
    FROM {predictions}
"""
_COUNT_PREDICTIONS_OF = {
    "postgresql": _COUNT_PREDICTIONS.format(
        predictions=f"(SELECT *, {_OF_PREDICTION} AS fingerprint FROM predictions) predictions",  # noqa: S608
        fingerprints="""
            , count(fingerprint) AS hashed
            , count(DISTINCT uuid_hash_extended(id, 0)) AS ids
            , count(DISTINCT uuid_hash_extended(user_id, hashtextextended(idempotency_key, 0))) AS different_keys
            , coalesce(sum(fingerprint), 0) AS holds_due
            , coalesce(sum(fingerprint) FILTER (WHERE status = 'succeeded'), 0) AS captures_due
            , coalesce(sum(fingerprint) FILTER (WHERE status IN ('failed', 'canceled')), 0) AS releases_due
        """,
    ),
    "sqlite": _COUNT_PREDICTIONS.format(predictions="predictions", fingerprints=""),
}

# The sum of each owner's rows, and how many owners have a different wallet. Rows are summed by kind first, which is a
# third of the work of computing the change of each row.
_COUNT_MOVEMENTS = f"""
    WITH entered AS (
        SELECT user_id, kind, sum(amount) AS amount, min(amount) AS lowest, count(*) AS movements,
            count(prediction_id) AS of_predictions {{fingerprint}}
        FROM ledger GROUP BY user_id, kind
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
        fingerprint=f", sum({_OF_MOVEMENT}) AS fingerprint, count({_OF_MOVEMENT}) AS hashed",
        fingerprints="""
            , coalesce(sum(hashed) FILTER (WHERE kind IN ('hold', 'capture', 'release')), 0) AS movements_hashed
            , coalesce(sum(fingerprint) FILTER (WHERE kind = 'hold'), 0) AS holds_entered
            , coalesce(sum(fingerprint) FILTER (WHERE kind = 'capture'), 0) AS captures_entered
            , coalesce(sum(fingerprint) FILTER (WHERE kind = 'release'), 0) AS releases_entered
        """,
    ),
    "sqlite": _COUNT_MOVEMENTS.format(fingerprint="", fingerprints=""),
}

# SQLite has no such functions. For each prediction it looks up all rows with its id and the movements that it should
# have; ...
_COUNT_ENTERED = {
    "sqlite": """
        SELECT count(*) AS joined, count(hold.kind) AS held,
            count(ending.kind) FILTER (WHERE p.status <> 'queued') AS resolved
        FROM predictions p
        JOIN predictions same ON same.id = p.id
        LEFT JOIN ledger hold ON hold.prediction_id = p.id AND hold.kind = 'hold'
            AND hold.user_id = p.user_id AND hold.amount = p.price_credits
        LEFT JOIN ledger ending ON ending.prediction_id = p.id AND ending.kind IN ('capture', 'release')
            AND ending.user_id = p.user_id AND ending.amount = p.price_credits
            AND (ending.kind = 'capture') = (p.status = 'succeeded')
    """,
}
# ... and all rows with its key: if every key is unique, there are as many pairs as keys.
_COUNT_KEYS = {
    "sqlite": """
        SELECT count(*) AS different_keys FROM predictions p
        JOIN predictions same ON same.user_id = p.user_id AND same.idempotency_key = p.idempotency_key
    """,
}


def _every_movement_is_called_for(counted: Counted) -> bool:
    """Whether each prediction exists once and has exactly the movements of its status, and nothing else has any."""
    if counted["others"] or counted["wallets_differing"]:
        # The checks decide about movements of other kinds that name a prediction, and owners without a wallet.
        return False
    # The ledger has as many holds as there are predictions, and so on. If the right ones are among them, there are no
    # others. The owner of a hold has a wallet.
    numbers_fit = (counted["holds"], counted["captures"], counted["releases"]) == (
        counted["predictions"],
        counted["succeeded"],
        counted["exceptional"],
    )
    if "ids" in counted:
        return (
            numbers_fit
            and counted["ids"] == counted["hashed"] == counted["predictions"]
            and counted["movements_hashed"] == counted["holds"] + counted["captures"] + counted["releases"]
            and all(counted[f"{kind}s_due"] == counted[f"{kind}s_entered"] for kind in ("hold", "capture", "release"))
        )
    # The joins gave as many rows as there are predictions: each exists once, has no movement twice, and
    # has its hold and, if it has ended, its capture or release.
    return (
        numbers_fit
        and counted["joined"] == counted["held"] == counted["predictions"]
        and counted["resolved"] == counted["succeeded"] + counted["exceptional"]
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
        _COUNT_ENTERED,
        _every_movement_is_called_for,
    ),
    Step(
        "looking for idempotency keys used twice",
        _named("idempotency_key_used_once"),
        _COUNT_KEYS,
        lambda counted: counted["different_keys"] == counted["keys"],
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

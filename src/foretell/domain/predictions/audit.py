"""Proof that the books are right: every promise about states and money, checked over the whole database.

Each check is one statement that returns what breaks a promise, with its ids. The dear ones are run only where a cheaper
statement could not prove, by counting, that there is nothing to find (`STEPS`). They
trust no constraint, index or trigger: those may have been lost.
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
    """One thing that should not be.

    `ids` says where: `prediction_id`, `user_id`, `ledger_id` or another key, with its value. `total` is how many
    findings its check has; not all of them are listed.
    """

    check: str
    what: str
    ids: Mapping[str, str]
    expected: str
    found: str
    total: int


@dataclass(frozen=True, slots=True)
class Progress:
    """An audit is about to take step number `step` of `steps`. `rows`: how many the tables have, once that is known."""

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
    """Everything that is wrong, at one moment; an empty list proves that nothing is.

    `connection` comes from `Database.snapshot()`, of a database `with_statement_timeout` of some minutes. At most
    `limit_per_check` findings of each check are listed, the lowest ids first. `parallel_workers`: how many processes
    PostgreSQL may take for it besides its own. `tell` hears of each step before it is taken. Raises `ValueError`
    outside of a snapshot, where what is being written would look wrong.
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


#: For one audit on PostgreSQL. A million predictions hash in memory with this, and spill to disk with the usual 4 MB.
#: Tables are scanned and hashed, whatever the statistics promise of indexes, which may be broken besides.
_SETTINGS = {
    "work_mem": "256MB",
    "enable_nestloop": "off",
    "enable_mergejoin": "off",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
}


#: What steps of an audit have counted, by name.
Counted = dict[str, int]


@dataclass(frozen=True, slots=True)
class Step:
    """Some checks that are made together. Where `proves` says so of what has been counted by then, none of them is run:
    they would find nothing. `count` returns one row of numbers, by name; it may be another statement for each database,
    or none where an earlier step has counted that."""

    doing: str
    checks: tuple[Check, ...]
    count: str | Mapping[str, str] | None = None
    proves: Callable[[Counted], bool] | None = None


def _named(*names: str) -> tuple[Check, ...]:
    return tuple(check for check in CHECKS if check.name in names)


# One number for a row's prediction, owner and amount. Two tables with as many rows, and the same sum of these numbers,
# have the same rows in whatever order: different ones come to the same sum with a chance of one in 2**64. Adding up is
# a tenth of the work of joining. PostgreSQL itself hashes partitions with these functions. Different numbers are of
# different rows; to sort and count them takes a quarter of the time of grouping.
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

# What each owner's rows come to, and how many owners have another wallet than that. First by kind: to add up a few
# numbers of rows alike is a third of the work of adding up what each row means.
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

# SQLite has no such functions. It looks up, for each prediction, all rows of its id and the movements that it should
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
# ... and all rows of its key: as many pairs as there are keys, if each has but itself.
_COUNT_KEYS = {
    "sqlite": """
        SELECT count(*) AS different_keys FROM predictions p
        JOIN predictions same ON same.user_id = p.user_id AND same.idempotency_key = p.idempotency_key
    """,
}


def _every_movement_is_called_for(counted: Counted) -> bool:
    """That each prediction stands once and has the movements that its status calls for, and nothing else has any."""
    if counted["others"] or counted["wallets_differing"]:
        # Movements of other kinds that name a prediction, and owners without a wallet, are for the checks to judge.
        return False
    # The ledger has as many holds as there are predictions, and so on: with the right ones among them, it has no
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
    # As many rows came of the joins as there are predictions: each stands once, nothing was entered twice for it, and
    # it has its hold and, if it has ended, its capture or release.
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
    # SQLite keeps a UUID as 32 digits; people search for it as it is shown everywhere else.
    is_uuid = name in ("prediction_id", "user_id") and isinstance(value, str)
    return str(UUID(hex=value)) if is_uuid else str(value)

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
            query = step.count if isinstance(step.count, str) else step.count[connection.dialect.name]
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
    they would find nothing. `count` returns one row of numbers, by name; it may be one statement for each database."""

    doing: str
    checks: tuple[Check, ...]
    count: str | Mapping[str, str] | None = None
    proves: Callable[[Counted], bool] | None = None


def _named(*names: str) -> tuple[Check, ...]:
    return tuple(check for check in CHECKS if check.name in names)


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
    FROM predictions
"""

# What each owner's rows come to, and how many owners have another wallet than that. First by kind: to add up a few
# numbers of rows alike is a third of the work of adding up what each row means.
_COUNT_MOVEMENTS = f"""
    WITH entered AS (
        SELECT user_id, kind, sum(amount) AS amount, min(amount) AS lowest, count(*) AS movements,
            count(prediction_id) AS of_predictions
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
    FROM entered
"""  # noqa: S608

_COUNT_ENTERED = {
    # A prediction and its movements are one group, of one owner and amount, whose balance comes out at 1000. With three
    # rows at most it can't do so by any others. Owners have numbers here, since PostgreSQL 15 knows no highest UUID.
    "postgresql": """
        SELECT count(*) AS unbalanced FROM (
            SELECT 1 FROM (
                SELECT id, user_id, CAST(price_credits AS bigint) AS amount, CASE status WHEN 'queued' THEN 999
                    WHEN 'succeeded' THEN 989 WHEN 'failed' THEN 899 WHEN 'canceled' THEN 899 ELSE 0 END AS balance
                FROM predictions
                UNION ALL
                SELECT prediction_id, user_id, amount, CASE kind WHEN 'hold' THEN 1 WHEN 'capture' THEN 10 ELSE 100 END
                FROM ledger WHERE kind IN ('hold', 'capture', 'release')
            ) entered
            LEFT JOIN (SELECT user_id, row_number() OVER () AS owner FROM wallets) wallet USING (user_id)
            GROUP BY id HAVING sum(balance) <> 1000 OR count(*) > 3 OR count(owner) < count(*)
                OR min(owner) <> max(owner) OR min(amount) <> max(amount)
        ) unbalanced
    """,
    # SQLite sorts what it groups, and is quicker at looking up, for each prediction, all rows of its id and the
    # movements that it should have.
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

_COUNT_KEYS = """
    SELECT count(*) AS same_keys FROM predictions p
    JOIN predictions same ON same.user_id = p.user_id AND same.idempotency_key = p.idempotency_key
"""


def _every_movement_is_called_for(counted: Counted) -> bool:
    """That each prediction stands once and has the movements that its status calls for, and nothing else has any."""
    if counted["others"] or counted["wallets_differing"]:
        # Movements of other kinds that name a prediction, and owners without a wallet, are for the checks to judge.
        return False
    if "unbalanced" in counted:
        return counted["unbalanced"] == 0
    # As many rows came of the joins as there are predictions: each stands once, and nothing was entered twice for it.
    # Each has its hold and, if it has ended, its capture or release, and the ledger has no more of either than that: so
    # none belongs to another prediction, to none, or to one that is queued. Whoever owns a hold has a wallet.
    return (
        counted["joined"] == counted["held"] == counted["holds"] == counted["predictions"]
        and counted["resolved"] == counted["succeeded"] + counted["exceptional"]
        and (counted["captures"], counted["releases"]) == (counted["succeeded"], counted["exceptional"])
    )


STEPS = (
    Step(
        "reading every prediction",
        _named("prediction_fits_status", "price_not_negative"),
        _COUNT_PREDICTIONS,
        lambda counted: counted["fitting"] == counted["priced"] == counted["predictions"],
    ),
    Step(
        "adding up every movement",
        _named("ledger_row_possible", "wallet_matches_ledger"),
        _COUNT_MOVEMENTS,
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
        lambda counted: counted["same_keys"] == counted["keys"],
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

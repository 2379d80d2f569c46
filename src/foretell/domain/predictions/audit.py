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

from foretell.domain.credits.tables import MOVEMENTS
from foretell.domain.predictions.audit_checks import CHECKS, KINDS, Check, movement
from foretell.kit.fingerprints import MODULUS


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
# these numbers, they have the same rows in any order: otherwise the sums are equal with a chance of one in 2**60.
# Summing is a tenth of the work of joining. PostgreSQL itself hashes partitions with these functions; SQLite gets an
# aggregate (`kit/fingerprints.py`).
_FINGERPRINT = "uuid_hash_extended({prediction}, uuid_hash_extended(user_id, hashint8extended({amount}, 0)))"
_OF_PREDICTION = _FINGERPRINT.format(prediction="id", amount="price_credits")
_OF_MOVEMENT = _FINGERPRINT.format(prediction="prediction_id", amount="amount")
_SUM_OF_PREDICTIONS = "fingerprint(id || ' ' || user_id, price_credits)"
_SUM_OF_MOVEMENTS = "fingerprint(prediction_id || ' ' || user_id, amount)"

#: The kinds of movements that predictions call for, and the others.
_OF_PREDICTIONS = ("hold", "capture", "release")
_IS_OF_PREDICTION = f"kind IN {_OF_PREDICTIONS}"
# SQLite looks up a list of more than two in a table that it makes for it, for each row anew.
_IS_ANOTHER = " AND ".join(f"kind <> '{kind}'" for kind in _OF_PREDICTIONS)
_QUEUED, _SUCCEEDED, _EXCEPTIONAL = "status = 'queued'", "status = 'succeeded'", "status IN ('failed', 'canceled')"

_COUNT_PREDICTIONS = f"""
    SELECT count(*) AS predictions,
        count(*) FILTER (WHERE {_SUCCEEDED}) AS succeeded,
        count(*) FILTER (WHERE {_EXCEPTIONAL}) AS exceptional,
        count(*) FILTER (WHERE price_credits >= 0) AS priced,
        count(idempotency_key) AS keys,
        count(*) FILTER (
            WHERE status IN ('queued', 'succeeded', 'failed', 'canceled')
                AND (status = 'queued') = (finished_at IS NULL)
                AND (status = 'succeeded') = (output IS NOT NULL)
                AND (status = 'failed') = (error_code IS NOT NULL)
        ) AS fitting,
        {{hashed}} AS hashed,
        {{more}},
        {{sum}} FILTER (WHERE {_QUEUED}) AS queued_due,
        {{sum}} FILTER (WHERE {_SUCCEEDED}) AS captures_due,
        {{sum}} FILTER (WHERE {_EXCEPTIONAL}) AS releases_due
    FROM {{predictions}}
"""  # noqa: S608
_COUNT_PREDICTIONS_OF = {
    # Different numbers belong to different rows; sorting and counting them takes a quarter of the time of grouping.
    "postgresql": _COUNT_PREDICTIONS.format(
        predictions=f"(SELECT *, {_OF_PREDICTION} AS fingerprint FROM predictions) predictions",  # noqa: S608
        sum="sum(fingerprint)",
        hashed="count(fingerprint)",
        more="""
            count(DISTINCT uuid_hash_extended(id, 0)) AS ids,
            count(DISTINCT uuid_hash_extended(user_id, hashtextextended(idempotency_key, 0))) AS different_keys
        """,
    ),
    # Ids, keys and owners are in the order of an index.
    "sqlite": _COUNT_PREDICTIONS.format(
        predictions="predictions",
        sum=_SUM_OF_PREDICTIONS,
        hashed="min(count(id), count(user_id), count(price_credits))",
        more=f"""
            (SELECT count(*) FROM (SELECT DISTINCT id FROM predictions)) AS ids,
            (SELECT count(*) FROM (SELECT DISTINCT user_id, idempotency_key FROM predictions
                WHERE idempotency_key IS NOT NULL)) AS different_keys,
            fingerprint_of_sums(user_id, price_credits) FILTER (WHERE {_QUEUED}) AS owned_queued,
            fingerprint_of_sums(user_id, price_credits) FILTER (WHERE {_SUCCEEDED}) AS owned_succeeded,
            fingerprint_of_sums(user_id, price_credits) FILTER (WHERE {_EXCEPTIONAL}) AS owned_exceptional
        """,  # noqa: S608
    ),
}

# On PostgreSQL, the sum of each owner's rows, and how many owners have a different wallet. Rows are summed by kind
# first, which is a third of the work of computing the change of each row.
_COUNT_MOVEMENTS = f"""
    WITH entered AS (
        SELECT user_id, kind, sum(amount) AS amount, min(amount) AS lowest, count(*) AS movements,
            count(prediction_id) AS of_predictions,
            sum({_OF_MOVEMENT}) AS fingerprint, count({_OF_MOVEMENT}) AS hashed
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
        coalesce(sum(of_predictions) FILTER (WHERE NOT {_IS_OF_PREDICTION}), 0) AS others,
        (SELECT count(*) FROM differing) AS wallets_differing,
        coalesce(sum(hashed), 0) AS complete,
        sum(fingerprint) FILTER (WHERE kind = 'hold') AS holds_entered,
        sum(fingerprint) FILTER (WHERE kind = 'capture') AS captures_entered,
        sum(fingerprint) FILTER (WHERE kind = 'release') AS releases_entered
    FROM entered
"""  # noqa: S608

# The most frequent kinds first.
_IS_POSSIBLE = " OR ".join(f"kind = '{kind}'" for kind in dict.fromkeys((*_OF_PREDICTIONS, *MOVEMENTS)))
# SQLite would sort all movements to group them, which takes longer than everything else together. If predictions and
# movements fit each other, predictions tell what their movements add up to for each owner; and only the other
# movements, of which there are few, are added up here.
_COUNT_MOVEMENTS_ON_SQLITE = f"""
    SELECT count(*) AS movements,
        count(*) FILTER (WHERE kind = 'hold') AS holds,
        count(*) FILTER (WHERE kind = 'capture') AS captures,
        count(*) FILTER (WHERE kind = 'release') AS releases,
        count(*) FILTER (WHERE (amount >= 0 OR kind = 'adjustment') AND ({_IS_POSSIBLE})) AS possible,
        count(prediction_id) FILTER (WHERE {_IS_ANOTHER}) AS others,
        count(prediction_id) FILTER (WHERE user_id IS NOT NULL AND amount IS NOT NULL) AS complete,
        {_SUM_OF_MOVEMENTS} FILTER (WHERE kind = 'hold') AS holds_entered,
        {_SUM_OF_MOVEMENTS} FILTER (WHERE kind = 'capture') AS captures_entered,
        {_SUM_OF_MOVEMENTS} FILTER (WHERE kind = 'release') AS releases_entered,
        fingerprint_of_sums(user_id, {movement(0)}) FILTER (WHERE {_IS_ANOTHER}) AS others_available,
        fingerprint_of_sums(user_id, {movement(1)}) FILTER (WHERE {_IS_ANOTHER}) AS others_held
    FROM ledger NOT INDEXED
"""  # noqa: S608
_COUNT_WALLETS_ON_SQLITE = f"""
    WITH owners AS (
        SELECT user_id FROM predictions WHERE status <> 'queued'
        UNION SELECT user_id FROM predictions WHERE coalesce(status, '') = 'queued'
        UNION SELECT user_id FROM ledger NOT INDEXED WHERE {_IS_ANOTHER}
    )
    SELECT fingerprint_of_sums(user_id, available) AS wallets_available,
        fingerprint_of_sums(user_id, held) AS wallets_held,
        count(*) - count(DISTINCT user_id)
            + (SELECT count(*) FROM (SELECT user_id FROM owners EXCEPT SELECT user_id FROM wallets))
            AS wallets_differing
    FROM wallets
"""  # noqa: S608


def _movements_fit_predictions(counted: Counted) -> bool:
    """Whether each prediction exists once and has exactly the movements of its status."""
    # Every prediction has a hold.
    due = counted | {"holds_due": counted["queued_due"] + counted["captures_due"] + counted["releases_due"]}
    return (
        (counted["holds"], counted["captures"], counted["releases"])
        == (counted["predictions"], counted["succeeded"], counted["exceptional"])
        and counted["ids"] == counted["hashed"] == counted["fitting"] == counted["predictions"]
        # Those that name a prediction, an owner and an amount.
        and counted["complete"] == counted["holds"] + counted["captures"] + counted["releases"] + counted["others"]
        and all((due[f"{kind}s_due"] - due[f"{kind}s_entered"]) % MODULUS == 0 for kind in _OF_PREDICTIONS)
    )


def _wallets_fit_movements(counted: Counted) -> bool:
    """Whether every owner has a wallet, and each wallet is the sum of its owner's movements."""
    if counted["wallets_differing"]:
        return False
    if "wallets_available" not in counted:
        # PostgreSQL has compared them itself.
        return True
    queued, succeeded, exceptional = (counted[f"owned_{status}"] for status in ("queued", "succeeded", "exceptional"))
    due = {"hold": queued + succeeded + exceptional, "capture": succeeded, "release": exceptional}
    return _movements_fit_predictions(counted) and all(
        (sum(MOVEMENTS[kind][column] * due[kind] for kind in due) + counted[f"others_{part}"]) % MODULUS
        == counted[f"wallets_{part}"]
        for column, part in enumerate(("available", "held"))
    )


def _every_movement_is_called_for(counted: Counted) -> bool:
    """Whether the movements of predictions fit, no other movement names a prediction, and owners have wallets."""
    # The checks decide about movements of other kinds that name a prediction, and owners without a wallet.
    return not counted["others"] and not counted["wallets_differing"] and _movements_fit_predictions(counted)


STEPS = (
    Step(
        "reading every prediction",
        _named("prediction_fits_status", "price_not_negative"),
        _COUNT_PREDICTIONS_OF,
        lambda counted: counted["fitting"] == counted["priced"] == counted["predictions"],
    ),
    Step(
        "adding up every movement",
        _named("ledger_row_possible"),
        {"postgresql": _COUNT_MOVEMENTS, "sqlite": _COUNT_MOVEMENTS_ON_SQLITE},
        lambda counted: counted["possible"] == counted["movements"],
    ),
    Step(
        "comparing every wallet with its movements",
        _named("wallet_matches_ledger"),
        {"sqlite": _COUNT_WALLETS_ON_SQLITE},
        lambda counted: counted["possible"] == counted["movements"] and _wallets_fit_movements(counted),
    ),
    Step(
        "looking through users and wallets", _named("wallet_not_negative", "wallet_of_everyone", "wallet_holds_queued")
    ),
    Step(
        "comparing every prediction with its movements",
        _named("ledger_fits_status", "ledger_matches_prediction", "prediction_stands_once", "prediction_has_wallet"),
        proves=_every_movement_is_called_for,
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

"""The audit finds every kind of fault, each planted behind the back of constraints and triggers; and nothing else."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text

from foretell.domain.accounts.identity import User
from foretell.domain.credits import ledger
from foretell.domain.predictions.audit import STEPS, Finding, Progress, audit
from foretell.domain.predictions.audit_checks import CHECKS
from foretell.domain.predictions.cancellation import cancel
from foretell.kit.clock import uuid7
from foretell.kit.database import Database

from .conftest import Predicting

NOBODY = uuid7()
MISSING = uuid7()


@dataclass(frozen=True)
class History:
    """A clean history: one prediction of every status for Anna, and Boris who only has credits."""

    anna: UUID
    boris: UUID
    queued: UUID
    succeeded: UUID
    failed: UUID
    canceled: UUID


@pytest.fixture
async def clean(database: Database, predicting: Predicting, anna: User, boris: User) -> History:
    queued, succeeded, failed, canceled = [
        await predicting.submit(anna, idempotency_key=f"key-{number}", request_hash=b"h") for number in range(4)
    ]
    await predicting.succeed(succeeded)
    await predicting.fail(failed)
    async with database.transaction() as connection:
        await cancel(connection, anna.id, canceled)
        await ledger.top_up(connection, anna.id, 50, reference="payment-1")
        await ledger.adjust(connection, boris.id, -10)
        await ledger.refund(connection, anna.id, 2)
    return History(anna.id, boris.id, queued, succeeded, failed, canceled)


async def findings(database: Database, **options: int) -> list[Finding]:
    async with database.snapshot() as connection:
        return await audit(connection, **options)


async def plant(database: Database, url: str, *statements: str) -> None:
    """Run `statements` with nothing to stop them. `{name}` in them is a table's column list or an id, as stored."""
    if database.dialect == "sqlite":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
            indexes = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE 'CREATE UNIQUE%'"
            ).fetchall()
            for [name] in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            for [name] in indexes:
                connection.execute(f"DROP INDEX {name}")
            # The only way to be rid of its primary key.
            connection.execute("CREATE TABLE kept AS SELECT * FROM predictions")
            connection.execute("DROP TABLE predictions")
            connection.execute("ALTER TABLE kept RENAME TO predictions")
            for statement in statements:
                assert connection.execute(statement).rowcount > 0, statement
        return
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("ALTER TABLE ledger DISABLE TRIGGER USER")
        for table, constraint in await connection.fetch(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint "
            "WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace"
        ):
            await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
        await connection.execute("ALTER TABLE predictions DROP CONSTRAINT pk_predictions")
        for index in ("hold", "capture_or_release", "reference"):
            await connection.execute(f"DROP INDEX uq_ledger_{index}")
        await connection.execute("DROP INDEX uq_predictions_idempotency_key")
        for statement in statements:
            assert not (await connection.execute(statement)).endswith(" 0"), statement
    finally:
        await connection.close()


async def test_a_clean_history_is_clean(database: Database, clean: History) -> None:
    assert await findings(database) == []


async def test_an_empty_database_is_clean(database: Database) -> None:
    assert await findings(database) == []


#: One kind of fault: statements that plant it, and what is found: check, and the id that it must name.
Fault = tuple[str, list[str], set[str], str]

_ENTER = "INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at) SELECT user_id,"
_COPY = (
    "INSERT INTO predictions (id, user_id, model, version, stage, input, price_credits, status, idempotency_key,"
    " request_hash, created_at, expires_at, finished_at, output, error_code)"
    " SELECT {missing}, user_id, model, version, stage, input, price_credits, status, idempotency_key,"
    " request_hash, created_at, expires_at, finished_at, output, error_code FROM predictions"
)

#: A payment in Stars, up to its credits and what was refunded when; and the top-up that stands for one of 50.
_PAID = (
    "INSERT INTO telegram_payments (charge_id, user_id, chat_id, stars, created_at, credits, refunded_at,"
    " refunded_credits) SELECT 'charge-1', id, 7, 25, created_at"
)
_ENTERED = "UPDATE ledger SET reference = 'telegram:charge-1' WHERE reference = 'payment-1'"

FAULTS: list[Fault] = [
    # A prediction's ledger does not fit its status.
    ("no hold", ["DELETE FROM ledger WHERE kind = 'hold' AND prediction_id = {queued}"],
     {"ledger_fits_status", "wallet_matches_ledger"}, "queued"),
    ("no capture", ["DELETE FROM ledger WHERE kind = 'capture'"],
     {"ledger_fits_status", "wallet_matches_ledger"}, "succeeded"),
    ("no release of a failure", ["DELETE FROM ledger WHERE kind = 'release' AND prediction_id = {failed}"],
     {"ledger_fits_status", "wallet_matches_ledger"}, "failed"),
    ("no release of a cancellation", ["DELETE FROM ledger WHERE kind = 'release' AND prediction_id = {canceled}"],
     {"ledger_fits_status", "wallet_matches_ledger"}, "canceled"),
    ("two holds", [f"{_ENTER} kind, amount, prediction_id, created_at FROM ledger WHERE prediction_id = {{queued}}"],
     {"ledger_fits_status", "wallet_matches_ledger"}, "queued"),
    ("charged twice",
     [f"{_ENTER} 'capture', 2, id, created_at FROM predictions WHERE id = {{succeeded}}"],
     {"ledger_fits_status", "wallet_matches_ledger"}, "succeeded"),
    ("captured and released",
     [f"{_ENTER} 'release', 2, id, created_at FROM predictions WHERE id = {{succeeded}}"],
     {"ledger_fits_status", "wallet_matches_ledger"}, "succeeded"),
    ("a failure charged", ["UPDATE ledger SET kind = 'capture' WHERE kind = 'release' AND prediction_id = {failed}"],
     {"ledger_fits_status", "wallet_matches_ledger"}, "failed"),
    ("released while queued", [f"{_ENTER} 'release', 2, id, created_at FROM predictions WHERE id = {{queued}}"],
     {"ledger_fits_status", "wallet_matches_ledger"}, "queued"),
    ("the status alone changed", ["UPDATE predictions SET status = 'canceled', error_code = NULL WHERE id = {queued}"],
     {"ledger_fits_status", "prediction_fits_status", "wallet_holds_queued"}, "queued"),
    # A row of the ledger differs from its prediction, or has none.
    ("another amount in both rows", ["UPDATE ledger SET amount = 3 WHERE prediction_id = {failed}"],
     {"ledger_matches_prediction"}, "failed"),
    ("another amount in one row", ["UPDATE ledger SET amount = 3 WHERE kind = 'hold' AND prediction_id = {succeeded}"],
     {"ledger_matches_prediction", "wallet_matches_ledger"}, "succeeded"),
    # Sums over all rows stay as they are.
    ("amounts that two predictions have exchanged",
     ["UPDATE predictions SET price_credits = 5 WHERE id = {failed}",
      "UPDATE predictions SET price_credits = 7 WHERE id = {canceled}",
      "UPDATE ledger SET amount = 7 WHERE prediction_id = {failed}",
      "UPDATE ledger SET amount = 5 WHERE prediction_id = {canceled}"],
     {"ledger_matches_prediction"}, "failed"),
    ("another owner of both rows", ["UPDATE ledger SET user_id = {boris} WHERE prediction_id = {failed}"],
     {"ledger_matches_prediction"}, "failed"),
    ("another price", ["UPDATE predictions SET price_credits = 5 WHERE id = {succeeded}"],
     {"ledger_matches_prediction"}, "succeeded"),
    ("another owner of a prediction", ["UPDATE predictions SET user_id = {boris} WHERE id = {failed}"],
     {"ledger_matches_prediction"}, "failed"),
    ("a refund of somebody else's prediction",
     ["UPDATE ledger SET prediction_id = {failed}, user_id = {boris} WHERE kind = 'refund'"],
     {"ledger_matches_prediction", "wallet_matches_ledger"}, "failed"),
    ("a prediction that vanished", ["DELETE FROM predictions WHERE id = {succeeded}"],
     {"ledger_matches_prediction"}, "succeeded"),
    ("a queued prediction that vanished", ["DELETE FROM predictions WHERE id = {queued}"],
     {"ledger_matches_prediction", "wallet_holds_queued"}, "queued"),
    ("a hold of nothing", ["UPDATE ledger SET prediction_id = NULL WHERE kind = 'hold' AND prediction_id = {queued}"],
     {"ledger_matches_prediction", "ledger_fits_status"}, "queued"),
    # A row of the ledger that can't be.
    ("an unknown kind", ["UPDATE ledger SET kind = 'gift' WHERE kind = 'grant' AND user_id = {boris}"],
     {"ledger_row_possible", "wallet_matches_ledger"}, "boris"),
    ("a negative top-up", ["UPDATE ledger SET amount = -50 WHERE kind = 'top_up'"],
     {"ledger_row_possible", "wallet_matches_ledger"}, "anna"),
    ("a payment counted twice",
     ["INSERT INTO ledger (user_id, kind, amount, reference, created_at)"
      " SELECT user_id, kind, amount, reference, created_at FROM ledger WHERE reference = 'payment-1'",
      "UPDATE wallets SET available = available + 50 WHERE user_id = {anna}"],
     {"reference_used_once"}, "payment-1"),
    # A wallet that is not the sum of its rows.
    ("credits from nowhere", ["UPDATE wallets SET available = available + 1 WHERE user_id = {boris}"],
     {"wallet_matches_ledger"}, "boris"),
    ("credits gone", ["UPDATE wallets SET available = available - 1 WHERE user_id = {boris}"],
     {"wallet_matches_ledger"}, "boris"),
    ("held for nothing", ["UPDATE wallets SET held = held + 1, available = available - 1 WHERE user_id = {boris}"],
     {"wallet_matches_ledger", "wallet_holds_queued"}, "boris"),
    ("held no more", ["UPDATE wallets SET held = 0, available = available + 2 WHERE user_id = {anna}"],
     {"wallet_matches_ledger", "wallet_holds_queued"}, "anna"),
    # The sum over all wallets stays as it is.
    ("credits that two wallets have exchanged",
     ["UPDATE wallets SET available = available + 1 WHERE user_id = {boris}",
      "UPDATE wallets SET available = available - 1 WHERE user_id = {anna}"],
     {"wallet_matches_ledger"}, "anna"),
    ("credits that two owners have exchanged in both tables",
     ["UPDATE ledger SET user_id = CASE user_id WHEN {anna} THEN {boris} ELSE {anna} END WHERE kind = 'grant'",
      "UPDATE ledger SET amount = amount + 1 WHERE kind = 'grant' AND user_id = {boris}",
      "UPDATE ledger SET amount = amount - 1 WHERE kind = 'grant' AND user_id = {anna}"],
     {"wallet_matches_ledger"}, "boris"),
    ("a row that vanished", ["DELETE FROM ledger WHERE kind = 'adjustment'"], {"wallet_matches_ledger"}, "boris"),
    ("available below zero",
     ["UPDATE wallets SET available = available - 100 WHERE user_id = {boris}",
      "UPDATE ledger SET amount = -110 WHERE kind = 'adjustment'"],
     {"wallet_not_negative"}, "boris"),
    ("held below zero", ["UPDATE wallets SET held = -1, available = available + 1 WHERE user_id = {boris}"],
     {"wallet_not_negative", "wallet_matches_ledger", "wallet_holds_queued"}, "boris"),
    ("a wallet that vanished", ["DELETE FROM wallets WHERE user_id = {boris}"],
     {"wallet_matches_ledger", "wallet_of_everyone"}, "boris"),
    ("a user that vanished", ["DELETE FROM users WHERE id = {boris}"], {"wallet_of_everyone"}, "boris"),
    ("a ledger of nobody", ["UPDATE ledger SET user_id = {nobody} WHERE user_id = {boris}"],
     {"wallet_matches_ledger"}, "nobody"),
    ("a ledger of nobody that adds up to nothing",
     ["INSERT INTO ledger (user_id, kind, amount, created_at)"
      " SELECT {nobody}, 'adjustment', -amount, created_at FROM ledger WHERE kind = 'adjustment'",
      "INSERT INTO ledger (user_id, kind, amount, created_at)"
      " SELECT {nobody}, kind, amount, created_at FROM ledger WHERE kind = 'adjustment' AND user_id = {boris}"],
     {"wallet_matches_ledger"}, "nobody"),
    ("a free prediction of nobody",
     ["UPDATE predictions SET user_id = {nobody}, price_credits = 0 WHERE id = {failed}",
      "UPDATE ledger SET user_id = {nobody}, amount = 0 WHERE prediction_id = {failed}"],
     {"prediction_has_wallet", "wallet_matches_ledger"}, "failed"),
    ("a free movement of nobody", ["INSERT INTO ledger (user_id, kind, amount, created_at)"
                                   " SELECT {nobody}, kind, 0, created_at FROM ledger WHERE kind = 'top_up'"],
     {"wallet_matches_ledger"}, "nobody"),
    ("a prediction of nobody",
     ["UPDATE predictions SET user_id = {nobody} WHERE id = {succeeded}"],
     {"prediction_has_wallet", "ledger_matches_prediction"}, "succeeded"),
    # A prediction that does not fit its status.
    ("an unknown status", ["UPDATE predictions SET status = 'lost' WHERE id = {failed}"],
     {"prediction_fits_status", "ledger_fits_status"}, "failed"),
    ("an end without a time", ["UPDATE predictions SET finished_at = NULL WHERE id = {succeeded}"],
     {"prediction_fits_status"}, "succeeded"),
    ("a cancellation without a time", ["UPDATE predictions SET finished_at = NULL WHERE id = {canceled}"],
     {"prediction_fits_status"}, "canceled"),
    ("a success without output", ["UPDATE predictions SET output = NULL WHERE id = {succeeded}"],
     {"prediction_fits_status"}, "succeeded"),
    ("a success with an error", ["UPDATE predictions SET error_code = 'timeout' WHERE id = {succeeded}"],
     {"prediction_fits_status"}, "succeeded"),
    ("a failure without an error", ["UPDATE predictions SET error_code = NULL WHERE id = {failed}"],
     {"prediction_fits_status"}, "failed"),
    ("a failure with output", ["UPDATE predictions SET output = '1' WHERE id = {failed}"],
     {"prediction_fits_status"}, "failed"),
    ("a cancellation with output", ["UPDATE predictions SET output = '1' WHERE id = {canceled}"],
     {"prediction_fits_status"}, "canceled"),
    ("queued with an end", ["UPDATE predictions SET finished_at = created_at WHERE id = {queued}"],
     {"prediction_fits_status"}, "queued"),
    ("queued with output", ["UPDATE predictions SET output = '1' WHERE id = {queued}"],
     {"prediction_fits_status"}, "queued"),
    ("queued with an error", ["UPDATE predictions SET error_code = 'timeout' WHERE id = {queued}"],
     {"prediction_fits_status"}, "queued"),
    ("a negative price", ["UPDATE predictions SET price_credits = -2 WHERE id = {succeeded}"],
     {"price_not_negative", "ledger_matches_prediction"}, "succeeded"),
    ("one prediction, twice", ["INSERT INTO predictions SELECT * FROM predictions WHERE id = {succeeded}"],
     {"prediction_stands_once", "idempotency_key_used_once"}, "succeeded"),
    ("one key, two predictions", [f"{_COPY} WHERE id = {{succeeded}}"],
     {"idempotency_key_used_once", "ledger_fits_status"}, "missing"),
    ("a payment that nobody entered", [f"{_PAID}, 50, NULL, NULL FROM users WHERE id = {{anna}}"],
     {"payment_has_movements"}, "charge-1"),
    ("a payment of other credits", [f"{_PAID}, 51, NULL, NULL FROM users WHERE id = {{anna}}", _ENTERED],
     {"payment_has_movements"}, "charge-1"),
    ("a payment of somebody else", [f"{_PAID}, 50, NULL, NULL FROM users WHERE id = {{boris}}", _ENTERED],
     {"payment_has_movements"}, "charge-1"),
    ("a refund that nobody entered", [f"{_PAID}, 50, created_at, 50 FROM users WHERE id = {{anna}}", _ENTERED],
     {"payment_has_movements"}, "charge-1"),
    ("a refund that is only entered", [f"{_PAID}, 50, NULL, NULL FROM users WHERE id = {{boris}}",
                                       "UPDATE ledger SET reference = 'telegram-refund:charge-1'"
                                       " WHERE kind = 'adjustment'"],
     {"payment_has_movements"}, "charge-1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("statements", "checks", "named"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
async def test_a_planted_fault_is_found_and_named(
    database: Database,
    empty_database_url: str,
    clean: History,
    statements: list[str],
    checks: set[str],
    named: str,
) -> None:
    ids = {**clean.__dict__, "nobody": NOBODY, "missing": MISSING}
    shown: Callable[[UUID], str] = (
        (lambda identifier: f"'{identifier.hex}'")
        if database.dialect == "sqlite"
        else (lambda identifier: f"'{identifier}'::uuid")
    )
    literals = {name: shown(identifier) for name, identifier in ids.items()}
    await plant(database, empty_database_url, *(statement.format(**literals) for statement in statements))
    found = await findings(database)
    assert {finding.check for finding in found} == checks
    name = str(ids.get(named, named))
    assert any(name in finding.ids.values() for finding in found), found
    assert all(finding.what and finding.expected != finding.found for finding in found)


def test_every_check_has_a_fault_that_it_finds() -> None:
    # Otherwise a check could be wrong without anybody noticing.
    assert {check for fault in FAULTS for check in fault[2]} == {check.name for check in CHECKS}


async def test_a_flood_of_faults_is_counted_and_not_listed(
    database: Database, empty_database_url: str, predicting: Predicting, clean: History, boris: User
) -> None:
    for _ in range(7):
        await predicting.submit(boris, price_credits=1)
    await plant(database, empty_database_url, "DELETE FROM ledger WHERE kind = 'hold'")
    of_check = [
        finding for finding in await findings(database, limit_per_check=3) if finding.check == "ledger_fits_status"
    ]
    assert len(of_check) == 3
    assert {finding.total for finding in of_check} == {11}


async def test_the_audit_sees_one_moment(database: Database, predicting: Predicting, anna: User) -> None:
    async with database.snapshot() as connection:
        before = await connection.scalar(text("SELECT count(*) FROM predictions"))
        prediction_id = await predicting.submit(anna)
        assert await audit(connection) == []
        assert await connection.scalar(text("SELECT count(*) FROM predictions")) == before
    await predicting.succeed(prediction_id)
    assert await findings(database) == []


async def test_an_audit_says_how_far_it_is(database: Database, clean: History) -> None:
    told: list[Progress] = []
    async with database.snapshot() as connection:
        assert await audit(connection, parallel_workers=2, tell=told.append) == []
    steps = range(1, len(STEPS) + 1)
    assert [(progress.step, progress.steps) for progress in told] == [(each, len(STEPS)) for each in steps]
    assert len({progress.doing for progress in told}) == len(STEPS)
    # Four predictions; their holds and what became of three, two grants, a top-up, an adjustment and a refund.
    assert told[0].rows is None
    assert told[-1].rows == 4 + 7 + 5


def test_every_check_is_made_once() -> None:
    assert sorted(check.name for step in STEPS for check in step.checks) == sorted(check.name for check in CHECKS)


async def test_postgresql_is_not_audited_while_it_changes(fresh_postgresql: str) -> None:
    database: Any = Database(fresh_postgresql)
    try:
        async with database.transaction() as connection:
            with pytest.raises(ValueError, match="read committed"):
                await audit(connection)
    finally:
        await database.close()

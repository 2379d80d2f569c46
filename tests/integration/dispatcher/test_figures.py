"""Figures are the numbers of the database, and follow it: what waits, what was earned, whether the books are right."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, select, update
from tests.predictions import accepted, failed, id_of, open_account, submission, succeeded

from foretell.domain.accounts import registration
from foretell.domain.credits.ledger import grant
from foretell.domain.credits.tables import ledger, wallets
from foretell.domain.predictions.cancellation import cancel
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Ending, Store, Submission
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.kit.errors import Unavailable
from foretell.services.dispatcher import figures as figures_module
from foretell.services.dispatcher import revenue as revenue_module
from foretell.services.dispatcher.figures import Figures
from foretell.services.dispatcher.revenue import Revenue, Takings
from foretell.services.dispatcher.settings import DispatcherSettings

_MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
_YESTERDAY, _TODAY = _MIDNIGHT.date() - timedelta(days=1), _MIDNIGHT.date()
_MINUTE = timedelta(minutes=1)


def _figures(database: Database, **settings: object) -> Figures:
    return Figures(database, DispatcherSettings.model_validate(settings))


def _value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"foretell_{name}", labels)


async def _held(database: Database) -> int:
    async with database.snapshot() as connection:
        return int(await connection.scalar(select(func.sum(wallets.c.held))) or 0)


async def _captured(database: Database, since: datetime, until: datetime) -> int:
    """What the ledger says was captured in that time."""
    query = select(func.sum(ledger.c.amount)).where(
        ledger.c.kind == "capture", ledger.c.created_at >= since, ledger.c.created_at < until
    )
    async with database.snapshot() as connection:
        return int(await connection.scalar(query) or 0)


# What waits.


@pytest.mark.parametrize("chunk", [1, 3, 20_000])
async def test_what_waits_is_counted_whatever_is_read_at_once(
    database: Database, store: Store, ada: UUID, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures_module, "_CHUNK", chunk)
    bob = await open_account(database)
    waiting = await accepted(
        store,
        submission(ada, age_s=90, price_credits=2),
        submission(bob, age_s=20, price_credits=3),
        submission(ada, age_s=40, pool="gpu", price_credits=5),
        submission(bob, age_s=50, pool="gpu", price_credits=0),
        submission(ada, age_s=300),
        submission(ada, age_s=200),
        submission(ada, age_s=100),
    )
    await settle(store, [succeeded(waiting[4]), failed(waiting[5])])
    async with database.transaction() as connection:
        await cancel(connection, ada, waiting[6])
    figures = _figures(database, worker_pools=("tpu",))
    await figures.count_what_waits()
    assert _value("queued_predictions") == 4
    assert _value("queue_predictions", queue="ml_tasks") == _value("queue_predictions", queue="ml_tasks.gpu") == 2
    assert _value("queue_predictions", queue="ml_tasks.tpu") == 0
    assert _value("held_credits") == 10 == await _held(database)
    ages = {
        queue: _value("queue_oldest_task_age_seconds", queue=queue) or 0.0 for queue in ("ml_tasks", "ml_tasks.gpu")
    }
    # No later than now, no earlier than when they were made.
    assert 90 <= ages["ml_tasks"] < 100
    assert 50 <= ages["ml_tasks.gpu"] < 60
    assert _value("queue_oldest_task_age_seconds", queue="ml_tasks.tpu") == 0

    await settle(store, [succeeded(each) for each in waiting[:4]])
    await figures.count_what_waits()
    assert _value("queued_predictions") == 0
    assert _value("queue_predictions", queue="ml_tasks") == 0
    assert _value("queue_predictions", queue="ml_tasks.gpu") is None
    assert _value("held_credits") == 0
    assert _value("queue_oldest_task_age_seconds", queue="ml_tasks") == 0
    # Nobody said that there is such a pool, and nothing waits for it any more.
    assert _value("queue_oldest_task_age_seconds", queue="ml_tasks.gpu") is None


# What was earned.


def _at(owner: UUID, moment: datetime, **changes: object) -> Submission:
    """A submission as if it were made at that moment."""
    return submission(owner, id=id_of(moment), created_at=moment, **changes)


async def _ended(store: Store, endings: Sequence[Ending], at: datetime) -> None:
    assert len(await store.settle(endings, at)) == len(endings)


async def test_revenue_is_what_was_captured_on_each_day(database: Database, store: Store, ada: UUID) -> None:
    before, after = _MIDNIGHT - _MINUTE, _MIDNIGHT + _MINUTE
    day_before_yesterday = _MIDNIGHT - timedelta(days=1, minutes=1)
    late, early, crossing, dear, lost, old, old_crossing = await accepted(
        store,
        _at(ada, after, price_credits=1),
        _at(ada, before, price_credits=2),
        _at(ada, before, price_credits=4),
        _at(ada, before, price_credits=8, model="sentiment"),
        _at(ada, before, price_credits=16),
        _at(ada, day_before_yesterday, price_credits=32),
        _at(ada, day_before_yesterday, price_credits=64),
    )
    await _ended(store, [succeeded(old)], day_before_yesterday)
    await _ended(store, [succeeded(old_crossing)], _MIDNIGHT - timedelta(days=1))
    await _ended(store, [succeeded(early), failed(lost)], _MIDNIGHT - timedelta(microseconds=1))
    await _ended(store, [succeeded(crossing), succeeded(dear)], _MIDNIGHT)
    await _ended(store, [succeeded(late)], after)
    takings = await Revenue(database).add_up(_MIDNIGHT + timedelta(hours=1))
    assert takings == {
        ("flight-delay", _YESTERDAY): Takings(2 + 64, 2),
        ("flight-delay", _TODAY): Takings(1 + 4, 2),
        ("sentiment", _TODAY): Takings(8, 1),
    }
    day = timedelta(days=1)
    by_day = {each: sum(one.credits for (_, on), one in takings.items() if on == each) for each in (_YESTERDAY, _TODAY)}
    assert by_day[_YESTERDAY] == await _captured(database, _MIDNIGHT - day, _MIDNIGHT)
    assert by_day[_TODAY] == await _captured(database, _MIDNIGHT, _MIDNIGHT + day)


async def test_revenue_follows_what_ends_later_and_who_comes_later(database: Database, store: Store, ada: UUID) -> None:
    start = _MIDNIGHT - timedelta(hours=2)
    slow, canceled = await accepted(store, _at(ada, start, price_credits=10), _at(ada, start, price_credits=20))
    revenue = Revenue(database)
    assert await revenue.add_up(start + 30 * _MINUTE) == {}
    # Long after everything of its minute was seen.
    await _ended(store, [succeeded(slow)], start + 40 * _MINUTE)
    async with database.transaction() as connection:
        await cancel(connection, ada, canceled)
    # Committed a moment after the look, and accepted before it.
    (late,) = await accepted(store, _at(ada, start + 30 * _MINUTE - timedelta(seconds=2), price_credits=1))
    await _ended(store, [succeeded(late)], start + 40 * _MINUTE)
    assert await revenue.add_up(start + 41 * _MINUTE) == {("flight-delay", _YESTERDAY): Takings(11, 2)}
    # Seen again and again, it counts once; a day later it is yesterday's, and then nobody's.
    assert await revenue.add_up(start + 42 * _MINUTE) == {("flight-delay", _YESTERDAY): Takings(11, 2)}
    assert await revenue.add_up(_MIDNIGHT + timedelta(hours=20)) == {("flight-delay", _YESTERDAY): Takings(11, 2)}
    assert await revenue.add_up(_MIDNIGHT + timedelta(days=1)) == {}


async def test_revenue_of_those_whose_clock_is_wrong_is_shown(database: Database, store: Store, ada: UUID) -> None:
    start = _MIDNIGHT + timedelta(hours=12)
    usual = await accepted(store, *(_at(ada, start - each * 60 * _MINUTE) for each in (1, 3, 5)))
    await _ended(store, [succeeded(each) for each in usual], start)
    revenue = Revenue(database)
    assert await revenue.add_up(start + 10 * _MINUTE) == {("flight-delay", _TODAY): Takings(3, 3)}
    # Two apps of which one is hours behind and one ahead: into spans that were seen, between them, and into the future.
    moments = (start - 180 * _MINUTE, start - 100 * _MINUTE, start - 400 * _MINUTE, start + 120 * _MINUTE)
    wrong = await accepted(store, *(_at(ada, moment, price_credits=10) for moment in moments))
    await _ended(store, [succeeded(each) for each in wrong], start + 11 * _MINUTE)
    for each in range(4):
        takings = await revenue.add_up(start + (12 + each) * _MINUTE)
    assert takings == {("flight-delay", _TODAY): Takings(43, 7)}
    assert await revenue.add_up(start + 200 * _MINUTE) == takings


async def test_what_the_measuring_account_spends_is_no_revenue(database: Database, store: Store, ada: UUID) -> None:
    async with database.transaction() as connection:
        measuring = await registration.open_measuring_account(connection, password_hash="no hash")
        await grant(connection, measuring.id, 100)
    start = _MIDNIGHT + timedelta(hours=1)
    mine, hers = await accepted(store, _at(measuring.id, start, price_credits=10), _at(ada, start, price_credits=3))
    await _ended(store, [succeeded(mine), succeeded(hers)], start + _MINUTE)
    assert await Revenue(database).add_up(start + 30 * _MINUTE) == {("flight-delay", _TODAY): Takings(3, 1)}


async def test_revenue_of_days_that_are_over_is_shown_no_longer(
    database: Database, store: Store, ada: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    (identifier,) = await accepted(store, _at(ada, _MIDNIGHT, price_credits=3))
    await _ended(store, [succeeded(identifier)], _MIDNIGHT + _MINUTE)
    figures = _figures(database)
    labels = {"model": "flight-delay", "day": "2026-03-02"}
    for at, credits, charged in (
        (_MIDNIGHT + timedelta(hours=1), 3, 1),
        (_MIDNIGHT + timedelta(hours=47), 3, 1),
        (_MIDNIGHT + timedelta(hours=48), None, None),
    ):
        monkeypatch.setattr(figures_module, "now", lambda at=at: at)
        await figures.add_up_revenue()
        assert _value("revenue_credits", **labels) == credits
        assert _value("revenue_predictions", **labels) == charged


# Whether the books are right.


async def test_the_audit_says_how_much_is_wrong_and_when_it_looked(database: Database, store: Store, ada: UUID) -> None:
    await accepted(store, submission(ada))
    figures = _figures(database)
    before = now().timestamp()
    await figures.audit()
    assert _value("ledger_findings") == 0
    audited_at = _value("ledger_audited_timestamp_seconds") or 0.0
    assert before <= audited_at <= now().timestamp()

    await open_account(database)
    async with database.transaction() as connection:
        await connection.execute(update(wallets).values(available=wallets.c.available + 1))
    await figures.audit()
    # Both wallets differ from their rows, however many of them are listed.
    assert _value("ledger_findings") == 2
    async with database.transaction() as connection:
        await connection.execute(update(wallets).values(available=wallets.c.available - 1))
    await figures.audit()
    assert _value("ledger_findings") == 0


# All of them, again and again.


async def test_looking_goes_on_when_the_database_was_away_and_ends_when_told(
    database: Database, store: Store, ada: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = _figures(database, figures_interval_s=0.01, audit_interval_s=0.01)
    await figures.count_what_waits()
    await accepted(store, submission(ada), submission(ada))
    asked = 0

    def away() -> None:
        nonlocal asked
        asked += 1
        raise Unavailable(part="database")

    stopping = asyncio.Event()
    with monkeypatch.context() as patch:
        patch.setattr(database, "snapshot", away)
        looking = asyncio.create_task(figures.run(stopping))
        while asked < 10:
            await asyncio.sleep(0.01)
    assert _value("queued_predictions") == 0
    while _value("queued_predictions") != 2:
        await asyncio.sleep(0.01)
    stopping.set()
    await looking


async def test_two_dispatchers_find_the_same(database: Database, store: Store, ada: UUID) -> None:
    identifiers = await accepted(store, *(submission(ada) for _ in range(5)))
    await settle(store, [succeeded(identifiers[0])])
    found = []
    for figures in (_figures(database), _figures(database)):
        await asyncio.gather(figures.count_what_waits(), figures.add_up_revenue())
        today = now().date().isoformat()
        credits = _value("revenue_credits", model="flight-delay", day=today)
        found.append((_value("queued_predictions"), _value("held_credits"), credits))
    assert found == [(4, 4, 1), (4, 4, 1)]


async def test_revenue_of_many_spans_is_right_from_the_first_look_on(
    database: Database, store: Store, ada: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether spans widen or stay as they are, and whoever looks for the first time or the tenth."""
    start = _MIDNIGHT + timedelta(hours=1)
    patient, hasty, moody = Revenue(database), Revenue(database), Revenue(database)
    takings = 0
    for hours in range(8):
        begin = start + timedelta(hours=hours)
        made = await accepted(
            store, *(_at(ada, begin + each * 7 * _MINUTE, price_credits=each) for each in range(1, 9))
        )
        # The last one of each hour waits on.
        settled = made[:-1]
        await _ended(store, [succeeded(each) for each in settled], begin + 58 * _MINUTE)
        takings += sum(range(1, 8))
        expected = {("flight-delay", _TODAY): Takings(takings, 7 * (hours + 1))}
        at = begin + 59 * _MINUTE
        assert await patient.add_up(at) == expected
        with monkeypatch.context() as patch:
            # Every look takes too long.
            patch.setattr(revenue_module, "_LOOK_S", 0.0)
            assert await hasty.add_up(at) == expected
            # None does, for a while.
            patch.setattr(revenue_module, "_LOOK_S", 0.0 if hours % 3 == 2 else 1e9)
            assert await moody.add_up(at) == expected
        assert await Revenue(database).add_up(at) == expected

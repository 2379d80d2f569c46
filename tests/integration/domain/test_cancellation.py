"""Cancelling: while it is queued, once, and the credits come back."""

import asyncio

import pytest

from foretell.domain.accounts.identity import User
from foretell.domain.credits import ledger
from foretell.domain.credits.ledger import Balance
from foretell.domain.errors import AlreadyFinished, NotFound
from foretell.domain.predictions.audit import audit
from foretell.domain.predictions.cancellation import cancel
from foretell.domain.predictions.history import PredictionView
from foretell.kit.clock import uuid7
from foretell.kit.database import Database

from .conftest import Predicting


async def test_a_canceled_prediction_gives_its_credits_back(
    database: Database, predicting: Predicting, anna: User
) -> None:
    prediction_id = await predicting.submit(anna)
    async with database.transaction() as connection:
        assert await ledger.balance(connection, anna.id) == Balance(98, 2)
        view = await cancel(connection, anna.id, prediction_id)
    assert (view.id, view.status) == (prediction_id, "canceled")
    assert view.finished_at is not None
    async with database.snapshot() as connection:
        assert await ledger.balance(connection, anna.id) == Balance(100, 0)
        movement = (await ledger.movements(connection, anna.id, limit=1))[0]
        assert await audit(connection) == []
    assert (movement.kind, movement.prediction_id) == ("release", prediction_id)
    assert (movement.available_change, movement.held_change) == (2, -2)


async def test_a_result_that_comes_after_it_changes_nothing(
    database: Database, predicting: Predicting, anna: User
) -> None:
    prediction_id = await predicting.submit(anna)
    async with database.transaction() as connection:
        await cancel(connection, anna.id, prediction_id)
    assert not await predicting.succeed(prediction_id)
    async with database.snapshot() as connection:
        assert await ledger.balance(connection, anna.id) == Balance(100, 0)
        assert await audit(connection) == []


async def test_what_has_ended_stays_as_it_is(database: Database, predicting: Predicting, anna: User) -> None:
    succeeded, failed, canceled = [await predicting.submit(anna) for _ in range(3)]
    await predicting.succeed(succeeded)
    await predicting.fail(failed)
    async with database.transaction() as connection:
        await cancel(connection, anna.id, canceled)
        for prediction_id, status in ((succeeded, "succeeded"), (failed, "failed"), (canceled, "canceled")):
            with pytest.raises(AlreadyFinished) as refusal:
                await cancel(connection, anna.id, prediction_id)
            assert refusal.value.details == {"status": status}
    async with database.snapshot() as connection:
        assert await ledger.balance(connection, anna.id) == Balance(98, 0)
        assert await audit(connection) == []


async def test_foreign_and_absent_are_alike(
    database: Database, predicting: Predicting, anna: User, boris: User
) -> None:
    prediction_id = await predicting.submit(anna)
    async with database.transaction() as connection:
        with pytest.raises(NotFound) as foreign:
            await cancel(connection, boris.id, prediction_id)
        with pytest.raises(NotFound) as absent:
            await cancel(connection, boris.id, uuid7())
        assert foreign.value.message == absent.value.message
        assert await ledger.balance(connection, anna.id) == Balance(98, 2)


async def test_cancellations_and_results_that_race_end_each_prediction_once(
    database: Database, predicting: Predicting, anna: User
) -> None:
    ids = [await predicting.submit(anna, price_credits=1) for _ in range(20)]

    async def try_to_cancel(prediction_id: object) -> PredictionView:
        async with database.transaction() as connection:
            return await cancel(connection, anna.id, prediction_id)  # type: ignore[arg-type]

    attempts = [
        attempt
        for prediction_id in ids
        for attempt in (try_to_cancel(prediction_id), predicting.succeed(prediction_id))
    ]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    canceled, settled = outcomes[::2], outcomes[1::2]
    for cancellation, settlement in zip(canceled, settled, strict=True):
        if settlement is True:
            assert isinstance(cancellation, AlreadyFinished)
        else:
            assert settlement is False
            assert isinstance(cancellation, PredictionView)
    charged = settled.count(True)
    async with database.snapshot() as connection:
        assert await ledger.balance(connection, anna.id) == Balance(100 - charged, 0)
        assert await audit(connection) == []

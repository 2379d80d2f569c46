"""Looking at predictions: one's own, newest first, to the letter."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from foretell.contracts.messages import Status
from foretell.domain.accounts.identity import User
from foretell.domain.errors import NotFound
from foretell.domain.predictions import history
from foretell.domain.predictions.pages import Span, newest_ids
from foretell.kit.clock import now, uuid7, uuid7_at
from foretell.kit.database import Database

from .conftest import Predicting


async def test_a_queued_prediction_as_it_was_asked_for(database: Database, predicting: Predicting, anna: User) -> None:
    prediction_id = await predicting.submit(anna, payload=b'{"a":1.50,"b":"\xc3\xa9\\u0000"}')
    async with database.snapshot() as connection:
        view = await history.find(connection, anna.id, prediction_id)
    assert view.input is not None
    assert bytes(view.input) == b'{"a":1.50,"b":"\xc3\xa9\\u0000"}'
    assert (view.id, view.user_id, view.model, view.version, view.stage) == (
        prediction_id,
        anna.id,
        "flight-delay",
        "1.0.0",
        "input",
    )
    assert (view.status, view.price_credits) == ("queued", 2)
    assert (view.output, view.error, view.worker_id) == (None, None, None)
    assert (view.published_at, view.started_at, view.finished_at) == (None, None, None)
    assert view.expires_at > view.created_at


@pytest.mark.parametrize("output", [b"0.1234567890123456789", b"12345678901234567890123", b"1.50", b"null", b'"x"'])
async def test_payloads_come_back_to_the_letter(
    database: Database, predicting: Predicting, anna: User, output: bytes
) -> None:
    prediction_id = await predicting.submit(anna, payload=output)
    assert await predicting.succeed(prediction_id, output)
    async with database.snapshot() as connection:
        view = await history.find(connection, anna.id, prediction_id)
    assert view.output is not None
    assert view.input is not None
    assert bytes(view.output) == output
    assert bytes(view.input) == output


async def test_how_it_ended(database: Database, predicting: Predicting, anna: User) -> None:
    succeeded, failed = await predicting.submit(anna), await predicting.submit(anna)
    await predicting.succeed(succeeded)
    await predicting.fail(failed)
    async with database.snapshot() as connection:
        well = await history.find(connection, anna.id, succeeded)
        badly = await history.find(connection, anna.id, failed)
    assert (well.status, well.error, well.worker_id) == ("succeeded", None, "worker-1")
    assert well.started_at is not None
    assert well.finished_at is not None
    assert (badly.status, badly.output) == ("failed", None)
    assert badly.error is not None
    assert (badly.error.code, badly.error.message) == ("timeout", "It took too long.")


async def test_foreign_and_absent_are_alike(
    database: Database, predicting: Predicting, anna: User, boris: User
) -> None:
    prediction_id = await predicting.submit(anna)
    async with database.snapshot() as connection:
        with pytest.raises(NotFound) as foreign:
            await history.find(connection, boris.id, prediction_id)
        with pytest.raises(NotFound) as absent:
            await history.find(connection, boris.id, uuid7())
    assert foreign.value.message == absent.value.message


async def test_those_who_wait_find_many_at_once(
    database: Database, predicting: Predicting, anna: User, boris: User
) -> None:
    ids = {await predicting.submit(anna), await predicting.submit(boris)}
    async with database.snapshot() as connection:
        assert {view.id for view in await history.find_many(connection, [*ids, uuid7()])} == ids
        assert await history.find_many(connection, []) == []


@pytest.fixture
async def of_anna(predicting: Predicting, anna: User, boris: User) -> dict[str, list[UUID]]:
    """Twelve predictions of Anna, three of each status, of two models, and as many of Boris's between them."""
    made: dict[str, list[UUID]] = {"queued": [], "succeeded": [], "failed": [], "sentiment": []}
    for number in range(12):
        await predicting.submit(boris)
        model = "sentiment" if number % 2 else "flight-delay"
        prediction_id = await predicting.submit(anna, model=model)
        status = ("queued", "succeeded", "failed")[number % 3]
        if status == "succeeded":
            await predicting.succeed(prediction_id)
        if status == "failed":
            await predicting.fail(prediction_id)
        made[status].append(prediction_id)
        if model == "sentiment":
            made["sentiment"].append(prediction_id)
    return made


async def test_pages_go_back_without_gaps(database: Database, anna: User, of_anna: dict[str, list[UUID]]) -> None:
    listed: list[UUID] = []
    async with database.snapshot() as connection:
        before_id = None
        while page := await history.page(connection, anna.id, limit=5, before_id=before_id):
            assert len(page) <= 5
            listed += [view.id for view in page]
            before_id = page[-1].id
    everything = of_anna["queued"] + of_anna["succeeded"] + of_anna["failed"]
    assert listed == sorted(everything, reverse=True)


@pytest.mark.parametrize("status", ["queued", "succeeded", "failed", "canceled"])
async def test_pages_of_one_status(database: Database, anna: User, of_anna: dict[str, list[UUID]], status: str) -> None:
    async with database.snapshot() as connection:
        page = await history.page(connection, anna.id, limit=50, status=status)  # type: ignore[arg-type]
        assert [view.id for view in page] == sorted(of_anna.get(status, []), reverse=True)
        both = await history.page(connection, anna.id, limit=50, status=status, model="sentiment")  # type: ignore[arg-type]
    expected = set(of_anna.get(status, [])) & set(of_anna["sentiment"])
    assert [view.id for view in both] == sorted(expected, reverse=True)


async def test_pages_of_one_model(database: Database, anna: User, of_anna: dict[str, list[UUID]]) -> None:
    async with database.snapshot() as connection:
        page = await history.page(connection, anna.id, limit=50, model="sentiment")
        assert [view.id for view in page] == sorted(of_anna["sentiment"], reverse=True)
        assert await history.page(connection, anna.id, limit=50, model="' OR 1=1 --") == []


@pytest.mark.parametrize("status", ["queued'", "", "' OR '1'='1", "done"])
async def test_a_status_that_is_none_finds_nothing_and_breaks_nothing(
    database: Database, anna: User, of_anna: dict[str, list[UUID]], status: str
) -> None:
    async with database.snapshot() as connection:
        assert await history.page(connection, anna.id, limit=50, status=status) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["queued", "succeeded"])
@pytest.mark.parametrize("apart_s", [-240, 0, 240])
async def test_a_time_is_that_of_the_moment_and_not_of_the_identifier(
    database: Database, predicting: Predicting, anna: User, apart_s: int, status: Status
) -> None:
    moment = now() - timedelta(minutes=30)
    made = moment + timedelta(seconds=apart_s)
    prediction_id = await predicting.submit(anna, id=uuid7_at(made), created_at=moment)
    if status == "succeeded":
        await predicting.succeed(prediction_id)
    tick = timedelta(microseconds=1)

    async def shown(since: datetime | None, until: datetime | None) -> list[UUID]:
        async with database.snapshot() as connection:
            return await newest_ids(
                connection, anna.id, limit=5, before_id=None, status=status, model=None, span=Span(since, until)
            )

    assert await shown(moment, moment + tick) == [prediction_id]
    assert await shown(moment, None) == [prediction_id]
    assert await shown(None, moment + tick) == [prediction_id]
    assert await shown(moment + tick, None) == []
    assert await shown(None, moment) == []

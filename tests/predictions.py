"""What tests of predictions share: users with credits, submissions, endings, and the proof that the books are right."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from foretell.contracts.messages import Failure, FailureCode
from foretell.domain.accounts import registration
from foretell.domain.credits import ledger
from foretell.domain.credits.ledger import Balance
from foretell.domain.predictions import history
from foretell.domain.predictions.audit import audit
from foretell.domain.predictions.history import PredictionView
from foretell.domain.predictions.intake import Receipt, accept
from foretell.domain.predictions.store import Ending, Store, Submission
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database
from foretell.kit.randomness import RANDOM

_numbers = count()

OUTPUT = b'{"prediction":1,"probability":0.7500}'


async def open_account(database: Database, *, credits: int = 100) -> UUID:
    """A new user with this many credits."""
    async with database.transaction() as connection:
        user = await registration.register(
            connection, username=f"user-{uuid7().hex}", password_hash="nobody logs in with this", grant_credits=credits
        )
    return user.id


def submission(user_id: UUID, **changes: Any) -> Submission:
    """A prediction that `user_id` asks for; `age_s` puts it into the past, `id` included."""
    made_at = now() - timedelta(seconds=changes.pop("age_s", 0))
    fields: dict[str, Any] = {
        "id": id_of(made_at),
        "user_id": user_id,
        "model": "flight-delay",
        "version": "1.0.0",
        "pool": None,
        "stage": "input",
        "payload": b'{"carrier":"AA"}',
        "price_credits": 1,
        "created_at": made_at,
        "expires_at": made_at + timedelta(hours=1),
    }
    return Submission(**fields | changes)


def id_of(moment: datetime) -> UUID:
    """A new identifier that says it was made at `moment`; those of one millisecond sort as they were made."""
    rest = (next(_numbers) << 30) | RANDOM.getrandbits(30)
    return UUID(int=(int(moment.timestamp() * 1000) << 80) | (0x7 << 76) | (0b10 << 62) | rest)


def succeeded(prediction_id: UUID, output: bytes = OUTPUT) -> Ending:
    return Ending(prediction_id, output=output, worker_id="worker-1", published_at=now(), started_at=now())


def failed(prediction_id: UUID, code: FailureCode = "model_error", message: str = "It failed.") -> Ending:
    return Ending(prediction_id, error=Failure(code, message), worker_id="worker-1", published_at=now())


async def accepted(store: Store, *submissions: Submission) -> list[UUID]:
    """Accept them all, and say under which ids."""
    outcomes = await accept(store, submissions)
    receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
    assert len(receipts) == len(outcomes), outcomes
    return [receipt.id for receipt in receipts]


async def balance_of(database: Database, user_id: UUID) -> Balance:
    async with database.snapshot() as connection:
        return await ledger.balance(connection, user_id)


async def movements_of(database: Database, user_id: UUID) -> list[tuple[str, int, UUID | None]]:
    """Kind, amount and prediction of every movement, oldest first."""
    async with database.snapshot() as connection:
        movements = await ledger.movements(connection, user_id, limit=10_000)
    return [(movement.kind, movement.amount, movement.prediction_id) for movement in reversed(movements)]


async def view_of(database: Database, user_id: UUID, prediction_id: UUID) -> PredictionView:
    async with database.snapshot() as connection:
        return await history.find(connection, user_id, prediction_id)


async def statuses_of(database: Database, ids: Sequence[UUID]) -> list[str]:
    """The status of each, in order."""
    async with database.snapshot() as connection:
        views = {view.id: view for view in await history.find_many(connection, ids)}
    return [views[identifier].status for identifier in ids]


async def assert_books_are_right(database: Database) -> None:
    """Nothing that `foretell audit` looks for is there."""
    async with database.snapshot() as connection:
        assert await audit(connection) == []

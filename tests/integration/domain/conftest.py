"""People with credits and predictions, for tests of the domain."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from foretell.contracts.messages import Failure
from foretell.domain.accounts import registration
from foretell.domain.accounts.identity import User
from foretell.domain.predictions.intake import Receipt, accept
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Ending, Submission
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database


@dataclass(frozen=True)
class Predicting:
    """Submits and ends predictions as the services do."""

    database: Database

    async def submit(self, user: User, **changes: Any) -> UUID:
        """A queued prediction of `user`; `changes` are fields of its submission."""
        moment = now()
        usual: dict[str, Any] = {
            "id": uuid7(),
            "user_id": user.id,
            "model": "flight-delay",
            "version": "1.0.0",
            "pool": None,
            "stage": "input",
            "payload": b'{"carrier": "AA"}',
            "price_credits": 2,
            "created_at": moment,
            "expires_at": moment + timedelta(hours=1),
        }
        [receipt] = await accept(open_store(self.database), [Submission(**(usual | changes))])
        assert isinstance(receipt, Receipt), receipt
        return receipt.id

    async def succeed(self, prediction_id: UUID, output: bytes = b'{"probability": 0.5}') -> bool:
        """Settle it as succeeded; whether that ended it."""
        ending = Ending(prediction_id, output=output, worker_id="worker-1", published_at=now(), started_at=now())
        return bool(await settle(open_store(self.database), [ending]))

    async def fail(self, prediction_id: UUID) -> bool:
        """Settle it as failed; whether that ended it."""
        ending = Ending(prediction_id, error=Failure("timeout", "It took too long."), worker_id="worker-1")
        return bool(await settle(open_store(self.database), [ending]))


@pytest.fixture
def predicting(database: Database) -> Predicting:
    return Predicting(database)


@pytest.fixture
def join(database: Database) -> Callable[..., Awaitable[User]]:
    """Registers a user by name, with 100 credits unless told otherwise."""

    async def join(username: str, credits: int = 100) -> User:
        async with database.transaction() as connection:
            return await registration.register(
                connection, username=username, password_hash="unused", grant_credits=credits
            )

    return join


@pytest.fixture
async def anna(join: Callable[..., Awaitable[User]]) -> User:
    return await join("Anna")


@pytest.fixture
async def boris(join: Callable[..., Awaitable[User]]) -> User:
    return await join("Boris")

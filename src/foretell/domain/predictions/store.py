"""The hot statements of the path of a prediction, as a port. `postgresql` and `sqlite` implement it,
and `opening` chooses.

Three statements limit the speed of the whole system, so they use the driver directly, a batch at a time, each in
one transaction. They also write the tables of `credits`: the hold must be in the same statement as the prediction.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from foretell.contracts.messages import Failure, Stage, Status


@dataclass(frozen=True, slots=True)
class Submission:
    """A requested prediction, validated but not yet accepted."""

    id: UUID
    user_id: UUID
    model: str
    version: str
    pool: str | None
    stage: Stage
    #: JSON, exactly as it was sent.
    payload: bytes
    price_credits: int
    created_at: datetime
    expires_at: datetime
    idempotency_key: str | None = None
    request_hash: bytes | None = None
    #: A checked URL that gets the event of its end.
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class Earlier:
    """The existing prediction of an idempotency key."""

    id: UUID
    request_hash: bytes
    status: Status


@dataclass(frozen=True, slots=True)
class Ending:
    """A reported end of a prediction; only the first one counts."""

    id: UUID
    output: bytes | None = None
    error: Failure | None = None
    worker_id: str | None = None
    published_at: datetime | None = None
    started_at: datetime | None = None


#: Called after the commit with the users for whom a settlement wrote events.
Told = Callable[[Collection[UUID]], None]


class Store(Protocol):
    """Every method is one transaction. All raise `Unavailable` when the database is unreachable."""

    async def accept(self, submissions: Sequence[Submission]) -> Collection[UUID]:
        """Hold the price of each submission and insert it as `queued`, if possible; returns the ids of those.

        A submission is left out if its idempotency key is known, or if its price, added to those of the same user
        before it in the batch, exceeds the user's available credits. No key may occur twice in a batch.
        """

    async def explain(
        self, refused: Sequence[Submission]
    ) -> tuple[Mapping[tuple[UUID, str], Earlier], Mapping[UUID, int]]:
        """Why `accept` left these out: the predictions of their keys, by (user, key), and the available credits."""

    async def mark_published(self, ids: Sequence[UUID], published_at: datetime) -> None:
        """Mark these as published. Skips those that have ended or are locked by another transaction."""

    async def settle(self, endings: Sequence[Ending], finished_at: datetime) -> Collection[UUID]:
        """End the predictions that are still queued, and capture or release their holds; returns their ids.

        Events are written, too, if there are receivers. No id may occur twice.
        """

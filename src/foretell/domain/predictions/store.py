"""The hot statements of the path of a prediction, as a port. `postgresql` and `sqlite` implement it,
and `opening` chooses.

Three statements decide how fast the whole system is, so they go straight to the driver, a batch at a time, each in
one transaction. They write the tables of `credits` too: the hold belongs into the same statement as the prediction.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from foretell.contracts.messages import Failure, Stage, Status


@dataclass(frozen=True, slots=True)
class Submission:
    """A prediction that somebody asks for, checked but not yet accepted."""

    id: UUID
    user_id: UUID
    model: str
    version: str
    pool: str | None
    stage: Stage
    #: JSON, to the letter as it came.
    payload: bytes
    price_credits: int
    created_at: datetime
    expires_at: datetime
    idempotency_key: str | None = None
    request_hash: bytes | None = None
    #: A checked URL: where the end of this one is to be told.
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class Earlier:
    """The prediction that an idempotency key stands for already."""

    id: UUID
    request_hash: bytes
    status: Status


@dataclass(frozen=True, slots=True)
class Ending:
    """How a prediction is said to have ended; the first ending of a prediction counts."""

    id: UUID
    output: bytes | None = None
    error: Failure | None = None
    worker_id: str | None = None
    published_at: datetime | None = None
    started_at: datetime | None = None


#: Hears, after the commit, for which users a settlement wrote events.
Told = Callable[[Collection[UUID]], None]


class Store(Protocol):
    """Every method is one transaction. All raise `Unavailable` when the database is away."""

    async def accept(self, submissions: Sequence[Submission]) -> Collection[UUID]:
        """Hold the price and insert as `queued` what can be; returns the ids of those.

        Left out is a submission whose idempotency key is known, or whose price, added to those of the same user
        before it in the batch, exceeds the user's available credits. No key may occur twice in a batch.
        """

    async def explain(
        self, refused: Sequence[Submission]
    ) -> tuple[Mapping[tuple[UUID, str], Earlier], Mapping[UUID, int]]:
        """Why `accept` left these out: what their keys stand for, by (user, key), and each user's available credits."""

    async def mark_published(self, ids: Sequence[UUID], published_at: datetime) -> None:
        """Note that these were published. Passes over those that have ended or that somebody else is at."""

    async def settle(self, endings: Sequence[Ending], finished_at: datetime) -> Collection[UUID]:
        """End what is still queued, capturing or releasing its hold; returns the ids of those ended here and now.

        Where somebody wants to hear of it, the events are written, too. No id may occur twice.
        """

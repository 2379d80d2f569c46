"""For operators: accounts, predictions of all users, and the journal."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from foretell.contracts.http.accounts import User
from foretell.contracts.http.bodies import Answer, KeptText, Request
from foretell.contracts.messages import Status


class OverseenUser(User):
    """An account as operators see it."""

    active: bool = Field(description="Whether sign-in is possible")
    closed_at: datetime | None = Field(description="When its owner closed it; inactive without it: blocked")
    available: int
    held: int


class OverseenUsers(Answer):
    """Accounts, the newest first; `next_cursor` is null on the last page."""

    items: list[OverseenUser]
    next_cursor: str | None


class OverseenUserDetails(OverseenUser):
    """An account with its totals."""

    queued: int = Field(description="Queued predictions")
    api_keys: int
    sessions: int
    webhooks: int
    chats: int
    predictions: int = Field(description="Ended within 30 days")
    credits: int = Field(description="Spent within 30 days")


class NewGrant(Request):
    """Credits for an account."""

    # Here and below, strict: true and "7" are refused.
    credits: int = Field(ge=1, le=1_000_000_000, strict=True, examples=[100])
    note: KeptText | None = Field(default=None, max_length=500, description="Why")
    reference: KeptText | None = Field(
        default=None, min_length=1, max_length=200, description="An id of your own; the same reference counts once"
    )


class NewRefund(Request):
    """Either the price of a prediction, once; or a number of credits."""

    prediction_id: UUID | None = None
    credits: Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)] | None = None
    note: KeptText | None = Field(default=None, max_length=500, description="Why")


class NewBlock(Request):
    """The reason for blocking or unblocking."""

    reason: KeptText | None = Field(default=None, max_length=500)


class NewRole(Request):
    """The new role."""

    role: Literal["user", "operator"]


class OverseenPrediction(Answer):
    """A prediction of any user, without input and output."""

    id: UUID
    user_id: UUID
    username: str
    model: str
    version: str
    pool: str | None = Field(description="Pool of workers that runs it; null: the common pool")
    status: Status
    price_credits: int
    created_at: datetime
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker_id: str | None
    error_code: str | None


class OverseenPredictions(Answer):
    """Newest first. A page reads some thousands at most: it may be short, or empty, although there is a next one."""

    items: list[OverseenPrediction]
    next_cursor: str | None


class JournalEntry(Answer):
    """One action of an operator. Entries are immutable."""

    id: int
    at: datetime
    operator_id: UUID | None = Field(description="null: by the command line")
    operator: str = Field(examples=["ada"])
    address: str = Field(description="Address of the operator", examples=["203.0.113.7"])
    act: str = Field(examples=["user.grant"])
    subject: str = Field(examples=["user:019ab3c4-0000-7000-8000-000000000000"])
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class JournalPage(Answer):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[JournalEntry]
    next_cursor: str | None

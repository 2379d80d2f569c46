"""The balance of an account, its movements and its usage."""

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from foretell.contracts.http.bodies import Answer, Request


class Balance(Answer):
    """The credits of an account: `held` are reserved for predictions that have not ended."""

    available: int = Field(examples=[97])
    held: int = Field(examples=[1])
    threshold: int | None = Field(
        default=None,
        description="When available and held together fall below it, the event `balance.low` is sent, once",
        examples=[20],
    )


class BalanceChange(Request):
    """The threshold of the event `balance.low`; null: none."""

    threshold: int | None = Field(ge=1, le=1_000_000_000, examples=[20])


class Transaction(Answer):
    """One immutable movement of credits, with the signed changes of `available` and `held`."""

    id: int
    kind: Literal["grant", "top_up", "hold", "capture", "release", "refund", "adjustment"]
    amount: int = Field(examples=[1])
    available_change: int = Field(examples=[-1])
    held_change: int = Field(examples=[1])
    prediction_id: UUID | None = None
    reference: str | None = None
    note: str | None = None
    created_at: datetime


class TransactionPage(Answer):
    """A part of the movements, newest first; `next_cursor` is null on the last page."""

    items: list[Transaction]
    next_cursor: str | None = Field(description="Send it as `cursor` for the page after this one")


class UsageOfDay(Answer):
    """Predictions of one model that ended on one day (UTC)."""

    day: date = Field(examples=["2026-01-31"])
    model: str = Field(examples=["flight-delay"])
    predictions: int = Field(description="Succeeded, failed and canceled")
    succeeded: int
    failed: int
    canceled: int
    credits: int = Field(description="Credits charged for the succeeded ones")


class Usage(Answer):
    """The newest day first; days and models without predictions are left out. Some seconds behind."""

    items: list[UsageOfDay]

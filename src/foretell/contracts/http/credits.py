"""The balance of an account, its movements and its usage."""

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from foretell.contracts.http.bodies import Answer, Request


class Balance(Answer):
    """The credits of an account: `held` are promised to predictions that have not ended."""

    available: int = Field(examples=[97])
    held: int = Field(examples=[1])
    threshold: int | None = Field(
        default=None,
        description="Once available and held together are below it, `balance.low` is told, once",
        examples=[20],
    )


class BalanceChange(Request):
    """When to be told that credits run low; null: never."""

    threshold: int | None = Field(ge=1, le=1_000_000_000, examples=[20])


class Transaction(Answer):
    """One movement of credits, which never changes. Signed: how `available` and `held` changed by it."""

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
    """What ended on one day (UTC), of one model."""

    day: date = Field(examples=["2026-01-31"])
    model: str = Field(examples=["flight-delay"])
    predictions: int = Field(description="Succeeded, failed and canceled")
    succeeded: int
    failed: int
    canceled: int
    credits: int = Field(description="What those that succeeded have cost")


class Usage(Answer):
    """The newest day first; days and models without any are left out. Some seconds behind."""

    items: list[UsageOfDay]

"""Payments in Telegram Stars: each charge is booked once, and its credits are taken back at most once."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts import references
from foretell.domain.accounts import telegram
from foretell.domain.accounts.telegram_tables import telegram_payments
from foretell.domain.credits import ledger
from foretell.domain.errors import CreditsSpent, NotFound, PaymentDiffers
from foretell.kit.clock import now


@dataclass(frozen=True, slots=True)
class Payment:
    """One charge: `stars` paid for `credits`. After a refund, `refunded_credits` of them were taken back."""

    charge_id: str
    user_id: UUID
    chat_id: int
    stars: int
    credits: int
    created_at: datetime
    refunded_at: datetime | None
    refunded_credits: int | None


_COLUMNS = [telegram_payments.c[name] for name in Payment.__dataclass_fields__]


async def pay(connection: AsyncConnection, *, chat_id: int, charge_id: str, stars: int, credits: int) -> Payment:
    """Add the credits of a charge to the account of the chat. A repeated report changes nothing.

    Raises `NotFound` for a chat that is not linked, `PaymentDiffers` if the charge was reported with other values,
    `InvalidAmount`.
    """
    known = await find(connection, charge_id)
    if known is None:
        link = await telegram.find(connection, chat_id)
        facts = {
            "charge_id": charge_id,
            "user_id": link.user.id,
            "chat_id": chat_id,
            "stars": stars,
            "credits": credits,
        }
        insert: Any = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(telegram_payments)
        # A concurrent report of the same charge waits here, and then finds the row.
        added = await connection.scalar(
            insert.values(**facts, created_at=now()).on_conflict_do_nothing().returning(telegram_payments.c.charge_id)
        )
        if added is not None:
            reference, note = f"{references.TELEGRAM}{charge_id}", _named(stars)
            await ledger.top_up(connection, link.user.id, credits, reference=reference, note=note)
        known = await find(connection, charge_id)
        assert known is not None
    if (known.chat_id, known.stars, known.credits) != (chat_id, stars, credits):
        raise PaymentDiffers(charge_id=charge_id)
    return known


async def refund(connection: AsyncConnection, charge_id: str, *, even_if_spent: bool) -> Payment:
    """Take back the credits of a charge whose Stars are returned, once. Spent credits can't be taken back.

    If some are spent, `even_if_spent` takes the rest; without it, raises `CreditsSpent`. Raises `NotFound` for an
    unknown charge.
    """
    payment = await find(connection, charge_id, lock=True)
    if payment is None:
        raise NotFound(what="payment")
    if payment.refunded_at is not None:
        return payment
    available = (await ledger.balance(connection, payment.user_id, lock=True)).available
    taken = min(available, payment.credits)
    if taken < payment.credits and not even_if_spent:
        raise CreditsSpent(credits=payment.credits, available=available)
    if taken:
        note = f"refund of {_named(payment.stars)}"
        await ledger.adjust(
            connection, payment.user_id, -taken, reference=f"{references.TELEGRAM_REFUND}{charge_id}", note=note
        )
    await connection.execute(
        update(telegram_payments)
        .where(telegram_payments.c.charge_id == charge_id)
        .values(refunded_at=now(), refunded_credits=taken)
    )
    refunded = await find(connection, charge_id)
    assert refunded is not None
    return refunded


def _named(stars: int) -> str:
    """Stars as in a note of the ledger, which the page reads."""
    return f"{stars} Telegram {'Star' if stars == 1 else 'Stars'}"


async def find(connection: AsyncConnection, charge_id: str, *, lock: bool = False) -> Payment | None:
    """The payment of a charge; with `lock`, its row is locked until the transaction ends."""
    query = select(*_COLUMNS).where(telegram_payments.c.charge_id == charge_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).mappings().first()
    return None if row is None else Payment(**row)

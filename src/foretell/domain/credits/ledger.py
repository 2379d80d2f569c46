"""Credits: balances, their movements, and the movements that do not belong to the hot path of a prediction.

Every movement is one row of the ledger and one guarded UPDATE of the wallet; it is done completely or not at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.references import REFUND, TELEGRAM, TELEGRAM_REFUND
from foretell.domain.credits.tables import MOVEMENTS, wallets
from foretell.domain.credits.tables import ledger as ledger_table
from foretell.domain.errors import DuplicateReference, InvalidAmount, NotEnoughCredits, NotFound
from foretell.domain.paging import newest_of
from foretell.kit.clock import now

#: Small enough that sums of movements never overflow 64 bits.
MAX_AMOUNT = 1_000_000_000
#: Other references may not have these prefixes; otherwise a payment could be mistaken for one that was already booked.
RESERVED_REFERENCES = (REFUND, TELEGRAM, TELEGRAM_REFUND)


@dataclass(frozen=True, slots=True)
class Balance:
    """Credits of one user: available ones, and those held by queued predictions."""

    available: int
    held: int


@dataclass(frozen=True, slots=True)
class Movement:
    """One row of the ledger."""

    id: int
    kind: str
    amount: int
    prediction_id: UUID | None
    reference: str | None
    note: str | None
    created_at: datetime

    @property
    def available_change(self) -> int:
        """The change of the available credits."""
        return MOVEMENTS[self.kind][0] * self.amount

    @property
    def held_change(self) -> int:
        """The change of the held credits."""
        return MOVEMENTS[self.kind][1] * self.amount


async def open_wallet(connection: AsyncConnection, user_id: UUID) -> None:
    """Give a new user an empty wallet."""
    await connection.execute(insert(wallets).values(user_id=user_id, available=0, held=0))


async def balance(connection: AsyncConnection, user_id: UUID, *, lock: bool = False) -> Balance:
    """The user's current balance; with `lock`, the row is locked until the transaction ends. Raises `NotFound`."""
    query = select(wallets).where(wallets.c.user_id == user_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    if row is None:
        raise NotFound(what="user")
    return Balance(available=row.available, held=row.held)


async def movements(
    connection: AsyncConnection, user_id: UUID, *, limit: int, before_id: int | None = None
) -> list[Movement]:
    """Up to `limit` movements of a user, newest first, starting before `before_id` (last id of the previous page)."""
    query = newest_of(connection, select(*_MOVEMENT_COLUMNS), ledger_table, user_id, limit=limit, before_id=before_id)
    return [_movement_of(row) for row in (await connection.execute(query)).mappings()]


async def grant(
    connection: AsyncConnection, user_id: UUID, amount: int, *, reference: str | None = None, note: str | None = None
) -> Movement:
    """Add free credits. Raises `InvalidAmount`, `NotFound`, `DuplicateReference`."""
    return await _move(connection, "grant", user_id, _checked(amount, lowest=1), reference=reference, note=note)


async def top_up(
    connection: AsyncConnection, user_id: UUID, amount: int, *, reference: str | None = None, note: str | None = None
) -> Movement:
    """Add credits that were paid for. Raises `InvalidAmount`, `NotFound`, `DuplicateReference`.

    With the payment's id as `reference`, a payment that is reported twice counts once.
    """
    return await _move(connection, "top_up", user_id, _checked(amount, lowest=1), reference=reference, note=note)


async def refund(
    connection: AsyncConnection, user_id: UUID, amount: int, *, reference: str | None = None, note: str | None = None
) -> Movement:
    """Give back credits that were captured. Raises `InvalidAmount`, `NotFound`, `DuplicateReference`."""
    return await _move(connection, "refund", user_id, _checked(amount, lowest=1), reference=reference, note=note)


async def adjust(
    connection: AsyncConnection, user_id: UUID, amount: int, *, reference: str | None = None, note: str | None = None
) -> Movement:
    """Correct a balance by `amount`, which may be negative, but not below the available credits.

    Raises `InvalidAmount`, `NotFound`, `NotEnoughCredits`, `DuplicateReference`.
    """
    if amount == 0:
        raise InvalidAmount(amount=0, lowest=-MAX_AMOUNT, highest=MAX_AMOUNT)
    checked = _checked(amount, lowest=-MAX_AMOUNT)
    return await _move(connection, "adjustment", user_id, checked, reference=reference, note=note)


async def release(connection: AsyncConnection, prediction_id: UUID, user_id: UUID, amount: int) -> Movement:
    """Release the hold of `prediction_id`. The caller has just ended that prediction in this transaction."""
    return await _move(connection, "release", user_id, amount, prediction_id=prediction_id)


async def by_reference(connection: AsyncConnection, user_id: UUID, reference: str) -> Movement | None:
    """The movement of a user with this reference, or None."""
    query = select(*_MOVEMENT_COLUMNS).where(ledger_table.c.reference == reference, ledger_table.c.user_id == user_id)
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else _movement_of(row)


_BY_REFERENCE = select(ledger_table.c.id).where(ledger_table.c.reference == bindparam("reference"))
_MOVEMENT_COLUMNS = [ledger_table.c[name] for name in Movement.__dataclass_fields__]


def _movement_of(row: Mapping[Any, Any]) -> Movement:
    return Movement(**row)


def _checked(amount: int, *, lowest: int) -> int:
    if not lowest <= amount <= MAX_AMOUNT:
        raise InvalidAmount(amount=amount, lowest=lowest, highest=MAX_AMOUNT)
    return amount


async def _move(
    connection: AsyncConnection,
    kind: str,
    user_id: UUID,
    amount: int,
    *,
    prediction_id: UUID | None = None,
    reference: str | None = None,
    note: str | None = None,
) -> Movement:
    """One atomic movement: if it fails, nothing is changed, even if the caller's transaction continues."""
    available_change, held_change = (factor * amount for factor in MOVEMENTS[kind])
    async with connection.begin_nested():
        changed = await connection.execute(
            update(wallets)
            .where(
                wallets.c.user_id == user_id,
                wallets.c.available + available_change >= 0,
                wallets.c.held + held_change >= 0,
            )
            .values(available=wallets.c.available + available_change, held=wallets.c.held + held_change)
        )
        if changed.rowcount == 0:
            # Raises NotFound if there is no wallet.
            has = await balance(connection, user_id)
            raise NotEnoughCredits(price=-available_change, available=has.available)
        if reference is not None and await connection.scalar(_BY_REFERENCE, {"reference": reference}):
            # On SQLite, where no other transaction writes, the trigger against replacing rows fires before the index.
            raise DuplicateReference(reference=reference)
        insert_row: Any = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(ledger_table)
        inserted = await connection.execute(
            insert_row.values(
                user_id=user_id,
                kind=kind,
                amount=amount,
                prediction_id=prediction_id,
                reference=reference,
                note=note,
                created_at=now(),
            )
            .on_conflict_do_nothing(
                index_elements=[ledger_table.c.reference], index_where=ledger_table.c.reference.is_not(None)
            )
            .returning(*_MOVEMENT_COLUMNS)
        )
        row = inserted.mappings().first()
        if row is None:
            raise DuplicateReference(reference=reference)
    return _movement_of(row)

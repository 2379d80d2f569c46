"""Credits: what somebody has, every movement that made it so, and the movements outside of a prediction's way.

Every movement is one row of the ledger and one guarded UPDATE of the wallet, or nothing at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.credits.tables import MOVEMENTS, wallets
from foretell.domain.credits.tables import ledger as ledger_table
from foretell.domain.errors import DuplicateReference, InvalidAmount, NotEnoughCredits, NotFound
from foretell.domain.paging import newest_of
from foretell.kit.clock import now

#: Far from where a 64-bit sum would overflow, however often it is moved.
MAX_AMOUNT = 1_000_000_000
#: What references of our own begin with: refunds of predictions, payments in Stars. Nobody else gives such a one, or a
#: payment could be taken for one that was counted before.
REFUND, TELEGRAM, TELEGRAM_REFUND = "refund:", "telegram:", "telegram-refund:"
RESERVED_REFERENCES = (REFUND, TELEGRAM, TELEGRAM_REFUND)


@dataclass(frozen=True, slots=True)
class Balance:
    """Credits of one user: free to spend, and held by predictions under way."""

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
        """What it did to the available credits."""
        return MOVEMENTS[self.kind][0] * self.amount

    @property
    def held_change(self) -> int:
        """What it did to the held credits."""
        return MOVEMENTS[self.kind][1] * self.amount


async def open_wallet(connection: AsyncConnection, user_id: UUID) -> None:
    """Give a new user an empty wallet."""
    await connection.execute(insert(wallets).values(user_id=user_id, available=0, held=0))


async def balance(connection: AsyncConnection, user_id: UUID, *, lock: bool = False) -> Balance:
    """What the user has now; with `lock`, until the transaction ends. Raises `NotFound`."""
    query = select(wallets).where(wallets.c.user_id == user_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    if row is None:
        raise NotFound(what="user")
    return Balance(available=row.available, held=row.held)


async def movements(
    connection: AsyncConnection, user_id: UUID, *, limit: int, before_id: int | None = None
) -> list[Movement]:
    """Up to `limit` movements of a user, newest first; those before `before_id`, the last id of the page before."""
    query = newest_of(connection, select(*_MOVEMENT_COLUMNS), ledger_table, user_id, limit=limit, before_id=before_id)
    return [_movement_of(row) for row in (await connection.execute(query)).mappings()]


async def grant(
    connection: AsyncConnection, user_id: UUID, amount: int, *, reference: str | None = None, note: str | None = None
) -> Movement:
    """Give credits for nothing. Raises `InvalidAmount`, `NotFound`, `DuplicateReference`."""
    return await _move(connection, "grant", user_id, _checked(amount, lowest=1), reference=reference, note=note)


async def top_up(
    connection: AsyncConnection, user_id: UUID, amount: int, *, reference: str | None = None, note: str | None = None
) -> Movement:
    """Add credits that were paid for. Raises `InvalidAmount`, `NotFound`, `DuplicateReference`.

    With the payment's id as `reference`, a payment that is told twice counts once.
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
    """Correct the books by `amount`, which may be negative, but takes no more than is available.

    Raises `InvalidAmount`, `NotFound`, `NotEnoughCredits`, `DuplicateReference`.
    """
    if amount == 0:
        raise InvalidAmount(amount=0, lowest=-MAX_AMOUNT, highest=MAX_AMOUNT)
    checked = _checked(amount, lowest=-MAX_AMOUNT)
    return await _move(connection, "adjustment", user_id, checked, reference=reference, note=note)


async def release(connection: AsyncConnection, prediction_id: UUID, user_id: UUID, amount: int) -> Movement:
    """Give back what `prediction_id` held. The caller has just ended that prediction in this transaction."""
    return await _move(connection, "release", user_id, amount, prediction_id=prediction_id)


async def by_reference(connection: AsyncConnection, user_id: UUID, reference: str) -> Movement | None:
    """The movement of a user that has this reference, if there is one."""
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
    """One movement, whole: where it fails, it leaves nothing behind even if the caller's transaction goes on."""
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
            # Raises NotFound if that is the reason.
            has = await balance(connection, user_id)
            raise NotEnoughCredits(price=-available_change, available=has.available)
        if reference is not None and await connection.scalar(_BY_REFERENCE, {"reference": reference}):
            # On SQLite, where nobody else writes meanwhile, a trigger that keeps rows from being replaced comes first.
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

"""Actions of operators on accounts, each with its row in the journal; and the search for accounts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts import references
from foretell.domain.accounts import registration, telegram_payments
from foretell.domain.accounts.identity import USER_COLUMNS, Role, User, user_of
from foretell.domain.accounts.registration import Ended
from foretell.domain.accounts.tables import api_keys, sessions, users
from foretell.domain.accounts.telegram_payments import Payment
from foretell.domain.accounts.telegram_tables import telegram_chats
from foretell.domain.credits import ledger
from foretell.domain.credits.ledger import Balance, Movement
from foretell.domain.credits.tables import wallets
from foretell.domain.errors import AccountClosed, InvalidReference, LastOperator, NotFound, NotRefundable, NotYourself
from foretell.domain.notifications.tables import endpoints
from foretell.domain.operators import journal
from foretell.domain.operators.journal import Actor
from foretell.domain.predictions import history, usage
from foretell.kit.clock import now

_MONTH = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Found:
    """An account in lists."""

    user: User
    balance: Balance


@dataclass(frozen=True, slots=True)
class Details:
    """One account with details; its usage is of the last 30 days."""

    user: User
    balance: Balance
    queued: int
    api_keys: int
    sessions: int
    webhooks: int
    chats: int
    predictions: int
    credits: int


def subject_of(user_id: UUID) -> str:
    """The name of an account in the journal."""
    return f"user:{user_id}"


async def find(
    connection: AsyncConnection,
    *,
    limit: int,
    before_id: UUID | None = None,
    name: str | None = None,
    role: Role | None = None,
    active: bool | None = None,
) -> Sequence[Found]:
    """Up to `limit` accounts, the newest first: those with `name` in their names or as their id."""
    query = (
        select(*USER_COLUMNS, wallets.c.available, wallets.c.held)
        .join_from(users, wallets, wallets.c.user_id == users.c.id)
        .order_by(users.c.id.desc())
        .limit(limit)
    )
    for condition in _conditions(before_id, name, role, active):
        query = query.where(condition)
    rows = (await connection.execute(query)).mappings()
    return [Found(user_of(row), Balance(row["available"], row["held"])) for row in rows]


def _conditions(
    before_id: UUID | None, name: str | None, role: Role | None, active: bool | None
) -> list[ColumnElement[bool]]:
    found = []
    if before_id is not None:
        found.append(users.c.id < before_id)
    if name:
        by_name = users.c.username_key.contains(name.casefold(), autoescape=True)
        try:
            found.append(or_(by_name, users.c.id == UUID(name)))
        except ValueError:
            found.append(by_name)
    if role is not None:
        found.append(users.c.role == role)
    if active is not None:
        found.append(users.c.active.is_(active))
    return found


async def details(connection: AsyncConnection, user_id: UUID) -> Details:
    """One account. Raises `NotFound`."""
    user = await registration.find_user_by_id(connection, user_id)
    used = await usage.used(connection, user_id, (now() - _MONTH).date())

    async def count(query: Select[Any]) -> int:
        return int(await connection.scalar(query) or 0)

    def of(table: Any, *more: Any) -> Select[Any]:
        return select(func.count()).select_from(table).where(table.c.user_id == user_id, *more)

    return Details(
        user=user,
        balance=await ledger.balance(connection, user_id),
        queued=await history.count_queued(connection, user_id),
        api_keys=await count(of(api_keys, api_keys.c.revoked_at.is_(None))),
        sessions=await count(of(sessions, sessions.c.expires_at > now())),
        webhooks=await count(of(endpoints, endpoints.c.kind == "webhook")),
        chats=await count(of(telegram_chats)),
        predictions=sum(each.succeeded + each.failed + each.canceled for each in used),
        credits=sum(each.credits for each in used),
    )


async def grant(
    connection: AsyncConnection,
    actor: Actor,
    user_id: UUID,
    credits: int,
    *,
    reference: str | None = None,
    note: str | None = None,
) -> Balance:
    """Give credits. Raises `InvalidAmount`, `NotFound`, `InvalidReference`, `DuplicateReference`."""
    if reference is not None and (not reference.strip() or reference.strip().startswith(ledger.RESERVED_REFERENCES)):
        raise InvalidReference(prefixes=", ".join(ledger.RESERVED_REFERENCES))
    before = await ledger.balance(connection, user_id, lock=True)
    movement = await ledger.grant(connection, user_id, credits, reference=reference, note=note)
    return await _moved(connection, actor, "user.grant", user_id, before, movement)


async def refund_prediction(
    connection: AsyncConnection, actor: Actor, user_id: UUID, prediction_id: UUID, *, note: str | None = None
) -> Balance:
    """Refund the price of a prediction, once. Raises `NotFound`, `NotRefundable`, `DuplicateReference`."""
    view = await history.find(connection, user_id, prediction_id)
    if view.status != "succeeded" or not view.price_credits:
        raise NotRefundable
    before = await ledger.balance(connection, user_id, lock=True)
    movement = await ledger.refund(
        connection,
        user_id,
        view.price_credits,
        reference=f"{references.REFUND}{prediction_id}",
        note=note or f"refund of prediction {prediction_id}",
    )
    return await _moved(connection, actor, "user.refund", user_id, before, movement)


async def refund_credits(
    connection: AsyncConnection, actor: Actor, user_id: UUID, credits: int, *, note: str | None
) -> Balance:
    """Refund credits. Raises `InvalidAmount`, `NotFound`."""
    before = await ledger.balance(connection, user_id, lock=True)
    movement = await ledger.refund(connection, user_id, credits, note=note)
    return await _moved(connection, actor, "user.refund", user_id, before, movement)


async def _moved(
    connection: AsyncConnection, actor: Actor, act: str, user_id: UUID, before: Balance, movement: Movement
) -> Balance:
    after = await ledger.balance(connection, user_id)
    facts = {"credits": movement.amount, "transaction": movement.id}
    words = {name: value for name in ("reference", "note") if (value := getattr(movement, name))}
    await journal.write(
        connection,
        actor,
        act,
        subject_of(user_id),
        before={"available": before.available},
        after={"available": after.available} | facts | words,
    )
    return after


async def refund_stars(
    connection: AsyncConnection, actor: Actor, charge_id: str, *, even_if_spent: bool
) -> tuple[Payment, bool]:
    """Take back the credits of a payment in Stars; returns also whether this was done before.

    Raises as `telegram_payments.refund` does.
    """
    known = await telegram_payments.find(connection, charge_id, lock=True)
    if known is not None and known.refunded_at is not None:
        return known, True
    payment = await telegram_payments.refund(connection, charge_id, even_if_spent=even_if_spent)
    await journal.write(
        connection,
        actor,
        "user.refund_stars",
        subject_of(payment.user_id),
        after={"charge": charge_id, "stars": payment.stars, "credits_taken": payment.refunded_credits},
    )
    return payment, False


async def block(connection: AsyncConnection, actor: Actor, user_id: UUID, *, reason: str | None = None) -> User:
    """Block an account at once. A second block for another reason is written to the journal.

    Raises `NotFound`, `NotYourself`, `LastOperator`, `AccountClosed`, `NotOperator`.
    """
    if user_id == actor.id:
        raise NotYourself
    before = await _locked(connection, actor, user_id, takes_operator=True)
    if before.closed_at is not None:
        raise AccountClosed
    if before.active:
        await registration.deactivate(connection, user_id)
        await _changed(connection, actor, "user.block", user_id, {"active": True}, {"active": False}, reason)
    elif reason:
        earlier = await journal.last_reason(connection, "user.block", subject_of(user_id))
        if reason != earlier:
            was = {"active": False, "reason": earlier}
            await _changed(connection, actor, "user.block", user_id, was, {"active": False}, reason)
    return await registration.find_user_by_id(connection, user_id)


async def unblock(connection: AsyncConnection, actor: Actor, user_id: UUID, *, reason: str | None = None) -> User:
    """Open an account that was blocked, or closed by its owner. Raises `NotFound`, `NotOperator`."""
    before = await _locked(connection, actor, user_id)
    if not before.active:
        await registration.activate(connection, user_id)
        was = {"active": False, "closed_at": before.closed_at}
        await _changed(connection, actor, "user.unblock", user_id, was, {"active": True}, reason)
    return await registration.find_user_by_id(connection, user_id)


async def set_role(connection: AsyncConnection, actor: Actor, user_id: UUID, role: Role) -> User:
    """Make a user an operator, or a user again.

    Raises `NotFound`, `NotYourself`, `LastOperator`, `NotOperator`.
    """
    before = await _locked(connection, actor, user_id, takes_operator=role != "operator")
    if user_id == actor.id and role != before.role:
        # Another operator has to do it, as a second pair of eyes.
        raise NotYourself
    if before.role != role:
        await registration.set_role(connection, user_id, role)
        await _changed(connection, actor, "user.role", user_id, {"role": before.role}, {"role": role}, None)
    return await registration.find_user_by_id(connection, user_id)


async def _locked(connection: AsyncConnection, actor: Actor, user_id: UUID, *, takes_operator: bool = False) -> User:
    """The account; the roles of all operators are locked until the transaction ends."""
    operators = await registration.lock_operators(connection)
    # The command line (no actor id) may block the only operator: it can create another one.
    if takes_operator and actor.id not in (None, user_id) and operators == [user_id]:
        raise LastOperator
    await journal.prove(connection, actor)
    return await registration.find_user_by_id(connection, user_id)


async def set_password(connection: AsyncConnection, actor: Actor, user_id: UUID, password_hash: str) -> None:
    """Set a new password; ends all log-ins of the account. Raises `NotFound`."""
    await registration.set_password(connection, user_id, password_hash)
    await journal.write(connection, actor, "user.password", subject_of(user_id))


async def add(
    connection: AsyncConnection, actor: Actor, *, username: str, password_hash: str, credits: int, role: Role
) -> User:
    """Create an account. Raises as `registration.register` does."""
    user = await registration.register(
        connection, username=username, password_hash=password_hash, grant_credits=credits, role=role
    )
    after = {"username": username, "role": role, "credits": credits}
    await journal.write(connection, actor, "user.add", subject_of(user.id), after=after)
    return user


async def _changed(
    connection: AsyncConnection,
    actor: Actor,
    act: str,
    user_id: UUID,
    before: dict[str, Any],
    after: dict[str, Any],
    reason: str | None,
) -> None:
    why = {"reason": reason} if reason else {}
    await journal.write(connection, actor, act, subject_of(user_id), before=before, after=after | why)


async def ended(connection: AsyncConnection, user_id: UUID) -> Sequence[Ended]:
    """The `Ended` of an account, for processes that cache it; empty if its tokens were never ended."""
    try:
        return [await registration.ended(connection, user_id)]
    except NotFound:
        return []

"""The journal of operators: who, what, when, state before and after. Written in the transaction of the action."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.accounts.tables import users
from foretell.domain.errors import NotOperator
from foretell.domain.operators.tables import journal
from foretell.kit.clock import now

State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: an operator, or a user of the installation's command line (without an id)."""

    id: UUID | None
    name: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the journal. `before` and `after` have the changed values."""

    id: int
    at: datetime
    operator_id: UUID | None
    operator: str
    address: str
    act: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


async def prove(connection: AsyncConnection, actor: Actor) -> None:
    """Raises `NotOperator` if the actor is not an operator; otherwise the role is locked until the transaction ends.

    The role may have changed since the request began, before its body arrived.
    """
    if actor.id is None:
        return
    query = select(users.c.id).where(users.c.id == actor.id, users.c.role == "operator", users.c.active.is_(True))
    if await connection.scalar(query.with_for_update(read=True)) is None:
        raise NotOperator


async def write(
    connection: AsyncConnection,
    actor: Actor,
    act: str,
    subject: str,
    *,
    before: State | None = None,
    after: State | None = None,
) -> None:
    """Write an action (`user.grant`, `model.traffic`, ...) on a subject (`user:ID`, `model:NAME`, ...).

    Never write a secret or values of an input: they can't be removed again. Raises `NotOperator`: every action calls
    this in its transaction, so the role is checked here.
    """
    await prove(connection, actor)
    await write_outcome(connection, actor, act, subject, before=before, after=after)


async def write_outcome(
    connection: AsyncConnection,
    actor: Actor,
    act: str,
    subject: str,
    *,
    before: State | None = None,
    after: State | None = None,
) -> None:
    """Write the outcome of an action outside of the database, whatever the actor's current role."""
    await connection.execute(
        insert(journal).values(
            at=now(),
            operator_id=actor.id,
            operator=actor.name,
            address=actor.address,
            act=act,
            subject=subject,
            before=_text(before),
            after=_text(after),
        )
    )


async def last_reason(connection: AsyncConnection, act: str, subject: str) -> str | None:
    """The reason of the last such action on the subject, if one was given."""
    query = select(journal.c.after).where(journal.c.subject == subject, journal.c.act == act)
    state = _value(await connection.scalar(query.order_by(journal.c.id.desc()).limit(1)))
    return None if state is None else state.get("reason")


async def page(
    connection: AsyncConnection,
    *,
    limit: int,
    before_id: int | None = None,
    subject: str | None = None,
) -> Sequence[Entry]:
    """Up to `limit` entries, newest first, before `before_id` and about `subject`, if given."""
    query = select(journal).order_by(journal.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(journal.c.id < before_id)
    if subject is not None:
        query = query.where(journal.c.subject == subject)
    return [
        Entry(**{**row, "before": _value(row["before"]), "after": _value(row["after"])})
        for row in (await connection.execute(query)).mappings()
    ]


def _text(state: State | None) -> str | None:
    return None if state is None else json.dumps(state, ensure_ascii=False, default=str)


def _value(text: str | None) -> dict[str, Any] | None:
    value: dict[str, Any] | None = None if text is None else json.loads(text)
    return value

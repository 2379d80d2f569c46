"""The journal: who did what, when, and how it was before and after. A row is written in the transaction of the act."""

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
    """Who acts: an operator, or whoever uses the command line of the installation (without an id)."""

    id: UUID | None
    name: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the journal. `before` and `after` are what the act is about, as far as it changed."""

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
    """Raises `NotOperator` if the actor is none (any more); else nobody changes that before the transaction ends.

    Whoever was an operator when a request began may be none when its body has arrived.
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
    """Write down an act (`user.grant`, `model.traffic`, ...) on a subject (`user:ID`, `model:NAME`, ...).

    Never a secret or an input's values: nobody can take them out again. Raises `NotOperator`: every act comes by here,
    in its own transaction, so this is where it is proven.
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
    """Write down what came of an act that was done elsewhere, whatever the actor is by now."""
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
    """Why this was done to the subject the last time, if somebody said so."""
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
    """Up to `limit` entries, newest first; those before `before_id`, and those on `subject`, if given."""
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

"""What must hold after every fault, with everything up again and the queues drained."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import func, select
from tests.faults.callers import Callers
from tests.system import System

from foretell.contracts import queues
from foretell.domain.credits.tables import ledger, wallets
from foretell.domain.predictions.tables import predictions
from foretell.kit.database import Database

_DRAIN_S = 60.0


async def assert_promises_kept(
    system: System, callers: Callers | None = None, *, ids: Iterable[UUID] = ()
) -> Counter[tuple[str, str | None]]:
    """Wait until everything is up and drained, and check every promise there is, by the audit and without it.

    Returns how the predictions of `callers` and `ids` ended: how many by (status, error code).
    """
    await system.heal()
    await system.drain(timeout_s=_DRAIN_S)
    await _drain_queues(system)
    assert await system.audit() == []
    promised = set(ids)
    if callers is not None:
        assert callers.ambiguous == []
        assert callers.server_errors == []
        assert callers.accepted, f"nothing was accepted: {callers.answers}"
        promised |= set(callers.accepted.values())
        assert len(set(callers.accepted.values())) == len(callers.accepted), "two keys got the same prediction"
    ended = await system.statuses(promised)
    assert promised - ended.keys() == set(), "predictions that were promised with 202 are missing"
    assert {status for status, _ in ended.values()} <= {"succeeded", "failed", "canceled"}
    await _assert_books_are_right(system, callers)
    return Counter(ended.values())


async def _drain_queues(system: System) -> None:
    deadline = time.monotonic() + _DRAIN_S
    async with system.broker() as broker:
        for queue in (queues.TASKS, queues.RESULTS):
            while left := (await broker.depth(queue)).ready:
                assert time.monotonic() < deadline, f"{left} messages still wait in {queue}"
                await asyncio.sleep(0.1)


async def _assert_books_are_right(system: System, callers: Callers | None) -> None:
    """The promises about money once more, in other words than the audit's."""
    database = Database(system.database_url, statement_timeout_s=60)
    kind = ledger.c.kind
    try:
        async with database.snapshot() as connection:
            assert await connection.scalar(select(func.count()).where(wallets.c.held != 0)) == 0
            twice = select(ledger.c.prediction_id).where(kind.in_(["capture", "release"]))
            twice = twice.group_by(ledger.c.prediction_id).having(func.count() > 1)
            assert (await connection.execute(twice)).all() == []
            charged = select(predictions.c.id).join(ledger, ledger.c.prediction_id == predictions.c.id)
            charged = charged.where(kind == "capture", predictions.c.status != "succeeded")
            assert (await connection.execute(charged)).all() == []
            if callers is None:
                return
            mine = predictions.c.user_id == callers.user_id
            keys = select(func.count(), func.count(predictions.c.idempotency_key.distinct())).where(mine)
            made, with_different_keys = (await connection.execute(keys)).one()
            assert made == with_different_keys == len(callers.accepted)
            granted = select(func.sum(ledger.c.amount)).where(kind == "grant", ledger.c.user_id == callers.user_id)
            price = select(func.coalesce(func.sum(predictions.c.price_credits), 0))
            spent = price.where(mine, predictions.c.status == "succeeded")
            left = select(wallets.c.available).where(wallets.c.user_id == callers.user_id)
            assert await connection.scalar(left) == await connection.scalar(granted) - await connection.scalar(spent)
    finally:
        await database.close()

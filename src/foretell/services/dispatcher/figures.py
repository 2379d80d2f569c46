"""Reads the operator's figures from the database: queued predictions, revenue, the audit of the ledger.

Each reading is followed by a pause of at least a hundred times its duration. So even a slow one puts little load on a
large and busy database. Any number of dispatchers may do this; their figures are the same.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter

import structlog

from foretell.contracts import queues
from foretell.domain.notifications import outbox
from foretell.domain.predictions import figures
from foretell.domain.predictions.audit import audit
from foretell.kit.clock import now
from foretell.kit.database import Database, server_time
from foretell.kit.errors import ForetellError
from foretell.services.dispatcher.measures import (
    HELD_CREDITS,
    LEDGER_AUDITED_AT,
    LEDGER_FINDINGS,
    NOTIFICATIONS_OLDEST_AGE_S,
    NOTIFICATIONS_OVERDUE_S,
    NOTIFICATIONS_PENDING,
    OLDEST_TASK_AGE_S,
    QUEUE_PREDICTIONS,
    QUEUED_PREDICTIONS,
    REVENUE_AT,
    REVENUE_CREDITS,
    REVENUE_PREDICTIONS,
)
from foretell.services.dispatcher.revenue import Revenue
from foretell.services.dispatcher.settings import DispatcherSettings

log = structlog.get_logger()

_PAUSE_FACTOR = 100.0
#: Queued predictions that one statement reads.
_CHUNK = 20_000
#: The timeout of each statement of an audit, which is slow on a large database.
_AUDIT_TIMEOUT_S = 300.0


@dataclass(slots=True)
class _Total:
    predictions: int = 0
    held_credits: int = 0
    oldest_created_at: datetime | None = None


class Figures:
    """Updates the gauges whose values come from the database."""

    def __init__(self, database: Database, settings: DispatcherSettings) -> None:
        self._database = database
        self._settings = settings
        self._task_queues = [queues.TASKS, *(queues.tasks_queue(pool) for pool in settings.worker_pools)]
        self._revenue = Revenue(database)
        # Without a bot, notifications for chats wait, which must not raise an alert.
        bot = (outbox.TELEGRAM,) if settings.bot_secret.get_secret_value() else ()
        self._kinds = (*outbox.INTERNET, *bot)

    async def run(self, stopping: asyncio.Event) -> None:
        """Update the gauges until `stopping` is set. A reading that fails is retried after its pause."""
        often, rarely = self._settings.figures_interval_s, self._settings.audit_interval_s
        looking = [
            asyncio.create_task(self._repeat(self.count_what_waits, pause_s=often)),
            asyncio.create_task(self._repeat(self.add_up_revenue, pause_s=often)),
            asyncio.create_task(self._repeat(self.count_notifications, pause_s=often)),
            # Not at once: a dispatcher in a crash loop must not audit at every start.
            asyncio.create_task(self._repeat(self.audit, pause_s=rarely, first_after_s=rarely / 10)),
        ]
        await stopping.wait()
        # An audit may take minutes, and aborting it does no harm.
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    async def count_what_waits(self) -> None:
        """Count the queued predictions and their held credits, and find the age of the oldest in each queue."""
        totals = {queue: _Total() for queue in self._task_queues}
        last = None
        while True:
            async with self._database.snapshot() as connection:
                found, last = await figures.waiting(connection, limit=_CHUNK, after=last)
            for waiting in found:
                total = totals.setdefault(queues.tasks_queue(waiting.pool), _Total())
                total.predictions += waiting.predictions
                total.held_credits += waiting.held_credits
                # The first chunk has the oldest.
                total.oldest_created_at = total.oldest_created_at or waiting.oldest_created_at
            if last is None:
                break
        QUEUE_PREDICTIONS.show({(queue,): total.predictions for queue, total in totals.items()})
        QUEUED_PREDICTIONS.set(sum(total.predictions for total in totals.values()))
        HELD_CREDITS.set(sum(total.held_credits for total in totals.values()))
        at = now()
        OLDEST_TASK_AGE_S.show({(queue,): _age_s(total.oldest_created_at, at) for queue, total in totals.items()})

    async def add_up_revenue(self) -> None:
        """Add up each model's revenue of today and yesterday."""
        at = now()
        takings = await self._revenue.add_up(at)
        REVENUE_CREDITS.show({(model, day.isoformat()): each.credits for (model, day), each in takings.items()})
        REVENUE_PREDICTIONS.show({(model, day.isoformat()): each.predictions for (model, day), each in takings.items()})
        REVENUE_AT.set(at.timestamp())

    async def count_notifications(self) -> None:
        """Count the pending notifications and find the age of the oldest."""
        async with self._database.snapshot() as connection:
            at = await server_time(connection)
            waiting = await outbox.waiting(connection, self._kinds)
        NOTIFICATIONS_PENDING.set(waiting.messages)
        NOTIFICATIONS_OLDEST_AGE_S.set(_age_s(waiting.oldest_at, at))
        NOTIFICATIONS_OVERDUE_S.set(_age_s(waiting.due_since, at))

    async def audit(self) -> None:
        """Audit the ledger; log every kind of finding."""
        database = self._database.with_statement_timeout(_AUDIT_TIMEOUT_S)
        try:
            async with database.snapshot() as connection:
                findings = await audit(connection, limit_per_check=1)
        finally:
            await database.close()
        LEDGER_FINDINGS.set(sum(finding.total for finding in findings))
        LEDGER_AUDITED_AT.set(now().timestamp())
        for finding in findings:
            # One line for each check; `foretell audit` lists all findings.
            log.error("books_found_wrong", check=finding.check, what=finding.what, findings=finding.total)

    async def _repeat(self, look: Callable[[], Awaitable[None]], *, pause_s: float, first_after_s: float = 0.0) -> None:
        await asyncio.sleep(first_after_s)
        while True:
            started = perf_counter()
            try:
                await look()
            except ForetellError as error:
                log.warning("figures_postponed", figures=look.__name__, reason=error.message)
            except Exception:
                log.exception("figures_failed", figures=look.__name__)
            await asyncio.sleep(max(pause_s, _PAUSE_FACTOR * (perf_counter() - started)))


def _age_s(created_at: datetime | None, at: datetime) -> float:
    # Never negative: the clocks of two machines may differ.
    return 0.0 if created_at is None else max(0.0, (at - created_at).total_seconds())

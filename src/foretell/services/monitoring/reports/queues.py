"""The broker's queues: waiting messages, publishing and consuming."""

from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.queues import dead_queue
from foretell.contracts.reports.activity import Publishes, QueueLine, Queues
from foretell.services.monitoring.reports.counting import Counts, count
from foretell.services.monitoring.reports.histograms import Histogram
from foretell.services.monitoring.reports.latency import numbers
from foretell.services.monitoring.reports.period import Period

_READY = "foretell_queue_ready_messages"
_DEAD_LETTERS = "foretell_dead_letters"
_OLDEST_AGE_S = "foretell_queue_oldest_task_age_seconds"
_REDELIVERIES = "foretell_broker_redeliveries_total"
_PUBLISHES = "foretell_broker_publishes_total"
_PUBLISH_DURATION_S = "foretell_broker_publish_duration_seconds"
_QUEUED = "foretell_queued_predictions"
_HELD = "foretell_held_credits"
_DEAD = dead_queue("")


async def queues(connection: AsyncConnection, period: Period) -> Queues:
    """The state of the queues, and the messages of the period."""
    counts = await count(connection, period)
    return Queues(
        **period.fields,
        items=queue_lines(counts),
        publishes=_publishes(counts),
        queued_predictions=_one(counts, _QUEUED),
        held_credits=_one(counts, _HELD),
    )


def queue_lines(counts: Counts) -> list[QueueLine]:
    """Every known queue."""
    ready = counts.newest(_READY, "queue")
    dead = counts.newest(_DEAD_LETTERS, "queue")
    ages = counts.newest(_OLDEST_AGE_S, "queue")
    redelivered = counts.increases(_REDELIVERIES, "queue")
    return [
        QueueLine(
            queue=key[0],
            ready=round(waiting),
            dead_letters=round(dead[key][1]) if key in dead else 0,
            oldest_task_age_s=ages[key][1] if key in ages else None,
            as_of=at,
            redeliveries=round(redelivered.get(key, 0.0)),
        )
        for key, (at, waiting) in sorted(ready.items())
        if not key[0].endswith(_DEAD)
    ]


def _publishes(counts: Counts) -> list[Publishes]:
    outcomes = counts.increases(_PUBLISHES, "service", "outcome")
    durations = counts.histograms(_PUBLISH_DURATION_S, "service")
    lines = []
    for service in sorted({service for service, _ in outcomes}):
        confirmed = outcomes.get((service, "confirmed"), 0.0)
        failed = outcomes.get((service, "failed"), 0.0)
        took = numbers(durations.get((service,), Histogram()))
        lines.append(
            Publishes(
                service=service,
                confirmed=round(confirmed),
                failed=round(failed),
                per_s=confirmed / counts.span_s,
                **took,
            )
        )
    return lines


def _one(counts: Counts, name: str) -> int | None:
    found = counts.newest(name)
    return round(found[()][1]) if found else None

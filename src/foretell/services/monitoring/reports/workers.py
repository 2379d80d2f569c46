"""The activity of each worker."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.activity import CurrentTask, WorkerLine, Workers
from foretell.kit import structs
from foretell.services.monitoring.reports.counting import Counted, Counts, count
from foretell.services.monitoring.reports.period import Period
from foretell.services.monitoring.reports.throughput import WORKER_TASKS
from foretell.services.monitoring.storage.instances import MISSING, Instance, known_state, list_instances

SERVICE = "ml_worker"
_CPU_S = "process_cpu_seconds_total"


async def workers(connection: AsyncConnection, period: Period) -> Workers:
    """The current and past activity of the workers."""
    counts = await count(connection, period, service=SERVICE)
    counted = {each.instance.id: each for each in counts.counted}
    known = await list_instances(connection, service=SERVICE, seen_since=period.since)
    # Of several processes with the same name, only the one that started last can be running.
    last = {each.instance: each.id for each in known}
    items = [_line(each, counted.get(each.id), period.until, replaced=last[each.instance] != each.id) for each in known]
    return Workers(
        **period.fields,
        live=sum(each.live for each in known),
        busy=sum(item.busy for item in items),
        tasks_per_s=counts.increase(WORKER_TASKS) / counts.span_s,
        items=items,
    )


def _line(worker: Instance, counted: Counted | None, at: datetime, *, replaced: bool) -> WorkerLine:
    said = worker.health
    done = _sums(counted, WORKER_TASKS, "outcome")
    elapsed_s = counted.elapsed_s if counted is not None else 1.0
    cpu = _sums(counted, _CPU_S).get(())
    return WorkerLine(
        id=worker.instance,
        state="crashed" if replaced and worker.state == MISSING else known_state(worker.state),
        since=worker.state_since,
        busy=worker.live and bool(said.get("busy")),
        current_task=_current_task(said) if worker.live else None,
        tasks_done=int(said.get("tasks_done") or 0),
        tasks_per_s=sum(done.values()) / elapsed_s,
        failed=round(done.get(("failed",), 0.0)),
        memory_bytes=worker.memory_bytes,
        cpu_share=cpu / elapsed_s if cpu is not None else None,
        models=[str(model) for model in said.get("models") or []],
        version=worker.version,
        started_at=worker.started_at,
        uptime_s=max(0.0, ((at if worker.live else worker.last_seen_at) - worker.started_at).total_seconds()),
        last_seen_at=worker.last_seen_at,
    )


def _sums(counted: Counted | None, name: str, *by: str) -> Mapping[tuple[str, ...], float]:
    if counted is None:
        return {}
    return Counts(Period(counted.taken[0].at, counted.taken[-1].at), [counted]).increases(name, *by)


def _current_task(said: Mapping[str, Any]) -> CurrentTask | None:
    try:
        return structs.convert(said.get("current_task"), CurrentTask | None)
    except msgspec.ValidationError:
        # A worker of another release has no such metric.
        return None

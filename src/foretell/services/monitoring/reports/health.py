"""The health of every service and instance, and since when."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.condition import Health, InstanceHealth, ServiceHealth, ServiceState
from foretell.services.monitoring.storage.instances import (
    HEALTHY,
    MISSING,
    STOPPED,
    UNHEALTHY,
    Instance,
    known_state,
    list_instances,
)

#: A service with a heartbeat within this time is expected to run.
REMEMBERED = timedelta(days=1)
#: How long stopped instances are shown, and how long missing ones affect the state of their service.
_STOPPED_SHOWN = timedelta(hours=1)
_MISSED = timedelta(minutes=10)
#: A shorter time without any instance is a restart and does not end "healthy since".
_RESTART = timedelta(seconds=30)


async def health(connection: AsyncConnection, at: datetime) -> Health:
    """The health of everything at `at`, without instances that were last seen more than a day before."""
    by_service: dict[str, dict[str, Instance]] = defaultdict(dict)
    # Of several processes with the same name, the one that started last is shown.
    for each in await list_instances(connection, seen_since=at - REMEMBERED):
        known = by_service[each.service].get(each.instance)
        if known is None or known.started_at <= each.started_at:
            by_service[each.service][each.instance] = each
    services = [_service(name, list(found.values()), at) for name, found in sorted(by_service.items())]
    return Health(status=_overall(services), as_of=at, services=services)


def _overall(services: Sequence[ServiceHealth]) -> Literal["healthy", "degraded", "unhealthy"]:
    states = {each.state for each in services}
    if states & {"down", "unhealthy"}:
        return "unhealthy"
    return "degraded" if "degraded" in states else "healthy"


def _service(name: str, instances: Sequence[Instance], at: datetime) -> ServiceHealth:
    missed = _missed(instances, at)
    state, since = _state(instances, missed)
    live = sum(each.live for each in instances)
    return ServiceHealth(
        service=name,
        state=state,
        since=since,
        live=live,
        expected=live + len(missed),
        healthy=sum(each.state == HEALTHY for each in instances),
        instances=[_instance(each, at) for each in _shown(instances, at)],
    )


def _missed(instances: Sequence[Instance], at: datetime) -> list[Instance]:
    """The missing instances that affect the state of their service."""
    missing = [each for each in instances if each.state == MISSING]
    if not any(each.live for each in instances):
        # No instance runs: those that were seen last, at any time.
        last = max(instances, key=lambda each: each.last_seen_at)
        if last.state == STOPPED:
            return []
        return [each for each in missing if last.last_seen_at - each.last_seen_at < _MISSED]
    # A missing instance does not count if a new one was started after it.
    newest = max((each.started_at for each in instances if each.state == HEALTHY), default=None)
    return [
        each for each in missing if at - each.state_since < _MISSED and (newest is None or newest < each.last_seen_at)
    ]


def _state(instances: Sequence[Instance], missed: Sequence[Instance]) -> tuple[ServiceState, datetime]:
    healthy = [each for each in instances if each.state == HEALTHY]
    unhealthy = [each for each in instances if each.state == UNHEALTHY]
    if not healthy and not unhealthy:
        last = max(instances, key=lambda each: each.last_seen_at)
        return ("stopped" if last.state == STOPPED else "down"), last.state_since
    wrong = [*unhealthy, *missed]
    if not wrong:
        return "healthy", _healthy_since(healthy, instances)
    return ("degraded" if healthy else "unhealthy"), min(each.state_since for each in wrong)


def _healthy_since(healthy: Sequence[Instance], instances: Sequence[Instance]) -> datetime:
    """Since when at least one instance has been running, without a gap longer than a restart."""
    since = min(each.state_since for each in healthy)
    earlier = sorted((each for each in instances if not each.live), key=lambda each: each.last_seen_at, reverse=True)
    for each in earlier:
        if since - each.last_seen_at < _RESTART:
            since = min(since, each.started_at)
    return since


def _shown(instances: Sequence[Instance], at: datetime) -> list[Instance]:
    """Running, missing and recently stopped instances; if there is none, the one seen last."""
    shown = [each for each in instances if each.state != STOPPED or at - each.state_since < _STOPPED_SHOWN]
    return shown or [max(instances, key=lambda each: each.last_seen_at)]


def _instance(each: Instance, at: datetime) -> InstanceHealth:
    until = at if each.live else each.last_seen_at
    return InstanceHealth(
        instance=each.instance,
        state=known_state(each.state),
        since=each.state_since,
        failing=_failing(each.health),
        version=each.version,
        started_at=each.started_at,
        uptime_s=max(0.0, (until - each.started_at).total_seconds()),
        address=each.address,
        hostname=each.hostname,
        pid=each.pid,
        last_seen_at=each.last_seen_at,
        memory_bytes=each.memory_bytes,
        logs_dropped=each.logs_dropped,
    )


def _failing(said: dict[str, Any]) -> dict[str, str]:
    failing = said.get("failing")
    return {str(part): str(why) for part, why in failing.items()} if isinstance(failing, dict) else {}

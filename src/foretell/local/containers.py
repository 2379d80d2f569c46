"""The state of one container, for the status table and a start."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

#: Services that run once, before the others start.
ONCE = ("secrets", "migrate", "kibana-view")
_STATES = {"created": "starting", "exited": "stopped", "dead": "stopped", "removing": "stopping"}


@dataclass(frozen=True, slots=True)
class Container:
    """The state of one container."""

    service: str
    #: Docker's name: foretell-ml-worker-2.
    name: str
    #: starting, running, restarting, stopping, paused or stopped
    state: str
    healthy: bool
    #: Why it is not healthy; for a healthy one, other problems that it reports.
    reason: str
    #: The published ports on this machine.
    published: tuple[int, ...]
    id: str
    uptime_s: int
    exit_code: int
    #: How often Docker has restarted it since it was created.
    restarts: int


def container_of(inspected: Mapping[str, Any]) -> Container:
    """A container from the output of `docker inspect`."""
    state = inspected["State"]
    health = state.get("Health") or {}
    status = str(state.get("Status", ""))
    running = status == "running"
    said = _said(health)
    # A container without a health check is healthy while it runs.
    healthy = running and health.get("Status", "healthy") == "healthy"
    starting = running and health.get("Status") == "starting"
    if starting:
        status = "starting"
    return Container(
        service=str((inspected["Config"].get("Labels") or {}).get("com.docker.compose.service", "")),
        name=str(inspected.get("Name", "")).removeprefix("/"),
        state=_STATES.get(status, status),
        healthy=healthy,
        reason="" if said == "healthy" or not running or starting else said,
        published=_published(inspected.get("NetworkSettings") or {}),
        id=str(inspected.get("Id", ""))[:12],
        uptime_s=_uptime_s(str(state.get("StartedAt", ""))) if running else 0,
        exit_code=0 if running else int(state.get("ExitCode", 0)),
        restarts=int(inspected.get("RestartCount", 0)),
    )


def _said(health: Mapping[str, Any]) -> str:
    """The output of its last health check, as one line."""
    checks = health.get("Log") or []
    output = str(checks[-1].get("Output", "")).strip() if checks else ""
    return output.splitlines()[-1][:300] if output else ""


def _published(network: Mapping[str, Any]) -> tuple[int, ...]:
    bindings = [binding for bound in (network.get("Ports") or {}).values() for binding in bound or []]
    return tuple(sorted({int(binding["HostPort"]) for binding in bindings if binding.get("HostPort")}))


def _uptime_s(started_at: str) -> int:
    try:
        # Python can't parse nanoseconds.
        started = datetime.fromisoformat(started_at.partition(".")[0].removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return max(0, int((datetime.now(UTC) - started).total_seconds()))

"""One line of the status table: what the supervisor says of a process, and what the process says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from foretell.local.health import Health
from foretell.local.installation import Program
from foretell.local.remote import ProcessState

#: A start without any progress for this long has failed. Until then, a process that does not listen is starting.
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """How one process is."""

    name: str
    service: str
    instance: str
    #: starting, running, restarting, stopping or stopped
    state: str
    healthy: bool
    #: Why it is not healthy.
    reason: str
    host: str
    port: int
    pid: int
    uptime_s: int
    #: The models that it is still loading, and for how many seconds each; the others it answers for.
    loading: Mapping[str, float] = field(default_factory=dict)


_STATES = {
    "STARTING": "starting",
    "RUNNING": "running",
    "BACKOFF": "restarting",
    "EXITED": "restarting",
    "STOPPING": "stopping",
    "STOPPED": "stopped",
    "FATAL": "stopped",
}


def status_of(program: Program, process: ProcessState, answer: Health | None) -> ProcessStatus:
    """`answer` is None for a process that was not asked."""
    state = _STATES.get(process.state, process.state.lower())
    healthy = answer is not None and answer.healthy
    if state == "starting" and healthy:
        # To the supervisor it is starting for some seconds more, to watch whether it stays.
        state = "running"
    starting = answer is not None and not answer.listens and process.uptime_s < PATIENCE_S
    if starting and state == "running":
        # To the supervisor it runs as soon as it has stayed for some seconds.
        state = "starting"
    return ProcessStatus(
        name=program.name,
        service=program.service,
        instance=program.instance,
        state=state,
        healthy=healthy,
        reason="" if answer is None or healthy or starting else answer.reason,
        host=program.host,
        port=program.port,
        pid=process.pid,
        uptime_s=process.uptime_s,
        loading={} if answer is None else answer.loading,
    )

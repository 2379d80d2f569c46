"""One line of the status table, from the supervisor's state of a process and from the process's own health."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from foretell.local.health import Health
from foretell.local.installation import Program
from foretell.local.remote import ProcessState

#: A start without progress for so long has failed. Until then, a process that does not listen is starting.
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """The status of one process."""

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
    #: The models that it is loading, and for how many seconds each; it already serves the others.
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
    """The status of a process; `answer` is None if its health was not checked."""
    state = _STATES.get(process.state, process.state.lower())
    healthy = answer is not None and answer.healthy
    if state == "starting" and healthy:
        # For the supervisor it is starting for some more seconds, until it has proved stable.
        state = "running"
    starting = answer is not None and not answer.listens and process.uptime_s < PATIENCE_S
    if starting and state == "running":
        # For the supervisor it is running as soon as it has run for some seconds.
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

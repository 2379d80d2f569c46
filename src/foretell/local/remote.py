"""Calls the supervisor process over its Unix socket."""

import http.client
import socket
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretell.kit.errors import ForetellError

_TIMEOUT_S = 5.0


class SupervisorAway(ForetellError):
    """The supervisor does not answer on {socket} ({reason})."""

    code = "supervisor_away"


@dataclass(frozen=True, slots=True)
class ProcessState:
    """The supervisor's state of one process."""

    name: str
    #: supervisord's states: STARTING, RUNNING, BACKOFF, STOPPING, STOPPED, EXITED, FATAL, UNKNOWN.
    state: str
    #: 0 if it does not run.
    pid: int
    #: Unix time of its last start, 0 if it never was.
    started_at: int
    #: Since that start, 0 if it does not run.
    uptime_s: int

    @property
    def over(self) -> bool:
        """Whether it has ended and will not be restarted (EXITED is followed by the next start)."""
        return self.state in ("STOPPED", "FATAL")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


class Supervisor:
    """A client of one supervisor process. Every call raises `SupervisorAway` if it does not answer."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path

    def _call(self, method: str, *arguments: Any) -> Any:
        connection = _UnixConnection(str(self._socket_path))
        try:
            request = xmlrpc.client.dumps(arguments, f"supervisor.{method}")
            connection.request("POST", "/RPC2", request, {"Content-Type": "text/xml"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorAway(socket=self._socket_path, reason=str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if response.status != 200:
            raise SupervisorAway(socket=self._socket_path, reason=f"status {response.status}")
        (result,), _ = xmlrpc.client.loads(answer)
        return result

    def pid(self) -> int:
        """The process id of the supervisor itself."""
        return int(self._call("getPID"))

    def processes(self) -> dict[str, ProcessState]:
        """Every process, by name."""
        return {
            info["name"]: ProcessState(
                name=info["name"],
                state=info["statename"],
                pid=info["pid"],
                started_at=info["start"],
                uptime_s=max(0, info["now"] - info["start"]) if info["pid"] else 0,
            )
            for info in self._call("getAllProcessInfo")
        }

    def add(self, names: list[str]) -> None:
        """Start processes that were added to the configuration file."""
        self._call("reloadConfig")
        for name in names:
            self._call("addProcessGroup", name)

    def request_stop(self, name: str) -> None:
        """Send SIGTERM to a process (and SIGKILL if it takes too long), and do not restart it."""
        try:
            self._call("stopProcessGroup", name, False)
        except xmlrpc.client.Fault:
            # It has ended, or is ending; the caller checks `processes()` afterwards.
            return

    def forget(self, name: str) -> None:
        """Remove an ended process from the supervisor's table."""
        self._call("removeProcessGroup", name)

    def request_shutdown(self) -> None:
        """Tell the supervisor to stop all processes and to end."""
        try:
            self._call("shutdown")
        except xmlrpc.client.Fault:
            return  # It is shutting down already.

"""Finds free ports, and the processes that use others."""

import errno
import socket
from collections.abc import Collection

from foretell.kit.errors import ForetellError
from foretell.kit.randomness import RANDOM

# Below the system's range for outgoing connections, because such a connection could use the port when a
# process is restarted.
_LOWEST, _HIGHEST = 20_000, 32_000
_TRIES = 200


class PortTaken(ForetellError):
    """Port {port} is taken{holder}. Stop that, or choose another port: {variable}={other} {start}"""

    code = "port_taken"


class PortForbidden(ForetellError):
    """Port {port} on {host} can't be opened ({reason}). Choose another: {variable}={other} {start}"""

    code = "port_forbidden"


class NoFreePort(ForetellError):
    """No free port was found from {lowest} to {highest}."""

    code = "no_free_port"


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the services do: a port with connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)


def free_port(host: str, avoid: Collection[int]) -> int:
    """A free port that is not in `avoid`. Raises `NoFreePort`."""
    for _ in range(_TRIES):
        port = RANDOM.randint(_LOWEST, _HIGHEST)
        if port in avoid:
            continue
        try:
            _bind(host, port)
        except OSError:
            continue
        return port
    raise NoFreePort(lowest=_LOWEST, highest=_HIGHEST)


def check_free(host: str, port: int, variable: str, start: str = "python start.py --start") -> None:
    """Raises `PortTaken` or `PortForbidden` if a service could not listen there; `start` tries again."""
    try:
        _bind(host, port)
    except OSError as error:
        other = port + 10_000 if port < 50_000 else port - 10_000
        if error.errno != errno.EADDRINUSE:
            raise PortForbidden(
                port=port, host=host, reason=error.strerror, variable=variable, other=other, start=start
            ) from error
        raise PortTaken(port=port, holder=_holder(port), variable=variable, other=other, start=start) from error


def _holder(port: int) -> str:
    """Like ` by nginx (pid 12)`, or empty if the system does not report it."""
    import psutil

    from foretell.local.leftovers import installation_of

    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                folder = installation_of(process)
                name = f"another Foretell in {folder}" if folder else process.name()
                return f" by {name} (pid {process.pid})"
    except psutil.Error:
        pass
    return ""

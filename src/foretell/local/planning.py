"""Decides which processes run, and where they listen."""

import os
import secrets
from collections.abc import Iterable, Mapping

from foretell.kit.errors import ForetellError
from foretell.local import ports
from foretell.local.installation import Program
from foretell.local.services import Service

MAX_WORKERS = 64
_LOOPBACK = "127.0.0.1"


class InvalidWorkerCount(ForetellError):
    """The number of workers must be from 1 to {most}, not {count}."""

    code = "invalid_worker_count"


class PortTwice(ForetellError):
    """{first} and {second} would both listen on port {port}. Set {variable} to another."""

    code = "port_twice"


def check_count(workers: int) -> None:
    """Raises `InvalidWorkerCount`."""
    if not 1 <= workers <= MAX_WORKERS:
        raise InvalidWorkerCount(most=MAX_WORKERS, count=workers)


class Planning:
    """The addresses of services, from the environment."""

    def __init__(self, table: Iterable[Service], environment: Mapping[str, str]) -> None:
        self._table = tuple(table)
        self._environment = environment

    def url(self, variable: str, default: str) -> str:
        """The URL in that environment variable, or the default."""
        url = self._environment.get(variable) or default
        if url.startswith("sqlite:///"):
            # Absolute, because commands in other folders use the stored URL.
            return f"sqlite:///{os.path.abspath(url.removeprefix('sqlite:///'))}"
        return url

    def programs(self, services: list[Service], workers: int | None) -> list[Program]:
        """A process for each service, and `workers` of those that scale.

        Raises `PortTwice`, `PortTaken`, `PortForbidden`.
        """
        host = self._environment.get("FORETELL_HOST") or _LOOPBACK
        self._check_ports_differ(services)
        programs: list[Program] = []
        for service in services:
            port = service.port_from(self._environment)
            if port:
                ports.check_free(host, port, service.port_variable)
                programs.append(_program(service.name, service.name, host, port))
        for service in services:
            if not service.port:
                count = workers if service.scales and workers is not None else service.count
                names = [f"{service.name}-{number}" for number in range(1, count + 1)]
                programs += self.more(service.name, names if service.scales else [service.name], programs)
        return programs

    def _check_ports_differ(self, services: list[Service]) -> None:
        owners: dict[int, Service] = {}
        for service in services:
            port = service.port_from(self._environment)
            if not port:
                continue
            first = owners.setdefault(port, service)
            if first is not service:
                # Name the service whose port was set, since that one should be changed.
                moved = first if self._environment.get(first.port_variable) else service
                raise PortTwice(first=first.name, second=service.name, port=port, variable=moved.port_variable)

    def more(self, service: str, names: list[str], others: list[Program]) -> list[Program]:
        """Processes for `names`, each on a free loopback port."""
        taken = {program.port for program in others} | {each.port_from(self._environment) for each in self._table}
        programs = []
        for name in names:
            port = ports.free_port(_LOOPBACK, taken)
            taken.add(port)
            programs.append(_program(name, service, _LOOPBACK, port))
        return programs


def _program(name: str, service: str, host: str, port: int) -> Program:
    return Program(name=name, service=service, instance=f"{name}-{secrets.token_hex(3)}", host=host, port=port)

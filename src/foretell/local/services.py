"""The table of all services that the local engine runs."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from foretell.kit.errors import ForetellError


class UnknownService(ForetellError):
    """There is no service {name}. These are there: {known}."""

    code = "unknown_service"


class NotInThisRelease(ForetellError):
    """The service {name} is not part of this release."""

    code = "not_in_this_release"


class InvalidPort(ForetellError):
    """{variable} must be a port, a whole number from 1 to 65535, not {value}."""

    code = "invalid_port"


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of process."""

    #: As in `foretell serve NAME`.
    name: str
    #: The module whose `main()` runs it in the foreground.
    module: str
    #: The documented port; 0: the engine takes a free one on the loopback interface.
    port: int = 0
    #: How many run by default.
    count: int = 1
    #: Whether `--workers` and `foretell scale` change how many run.
    scales: bool = False
    #: Environment variables that it needs; without them it is not started.
    needs: tuple[str, ...] = ()
    #: Whether a start waits until it is healthy. False if it depends on external services, which may be down for long.
    awaited: bool = True
    #: Whether it is stopped only after the others, because they send it data when they end.
    stops_last: bool = False
    #: Whether it reads model packages, and reports the last applied change at `/health` (`models_stamp`).
    reads_models: bool = False
    #: Its name in Docker Compose; the command line accepts both.
    compose_name: str = ""

    @property
    def logged_name(self) -> str:
        """What its log lines and metrics call it: `ml_worker`, `model_service`, …"""
        return (self.compose_name or self.name).replace("-", "_")

    @property
    def port_variable(self) -> str:
        """The environment variable that changes the documented port."""
        return f"FORETELL_{self.name.upper()}_PORT"

    def port_from(self, environment: Mapping[str, str]) -> int:
        """The port to use, 0 for any free one. Raises `InvalidPort`."""
        value = environment.get(self.port_variable, "")
        if not self.port or not value:
            return self.port
        if not value.isdecimal() or not 1 <= int(value) <= 65535:
            raise InvalidPort(variable=self.port_variable, value=repr(value))
        return int(value)


SERVICES: tuple[Service, ...] = (
    Service("app", "foretell.services.app.app", port=8000, reads_models=True),
    Service("dispatcher", "foretell.services.dispatcher.app"),
    Service(
        "worker", "foretell.services.worker.app", count=3, scales=True, compose_name="ml-worker", reads_models=True
    ),
    Service("model", "foretell.services.model.app", port=8001, compose_name="model-service", reads_models=True),
    Service(
        "preprocessing",
        "foretell.services.preprocessing.app",
        port=8002,
        compose_name="preprocessing-service",
        reads_models=True,
    ),
    Service(
        "monitoring",
        "foretell.services.monitoring.app",
        port=8003,
        stops_last=True,
        compose_name="monitoring-service",
    ),
    Service("bot", "foretell.services.bot.app", port=8004, needs=("TELEGRAM_TOKEN",), awaited=False),
)


def usual_url(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The default URL of a service with a documented port. Raises `InvalidPort`."""
    return f"http://127.0.0.1:{find(name).port_from(environment)}"


def is_here(service: Service) -> bool:
    """Whether this release has the service."""
    try:
        return find_spec(service.module) is not None
    except ModuleNotFoundError:
        return False


def runnable(
    table: Iterable[Service] = SERVICES, environment: Mapping[str, str] = os.environ
) -> tuple[list[Service], list[str]]:
    """The services to run, and a sentence for each that is left out because a setting is missing."""
    services: list[Service] = []
    remarks: list[str] = []
    for service in table:
        missing = [variable for variable in service.needs if not environment.get(variable)]
        if not is_here(service):
            continue
        if missing:
            remarks.append(f"The {service.name} is not started: {', '.join(missing)} is not set.")
        else:
            services.append(service)
    return services, remarks


def logged_name(name: str, table: Iterable[Service] = SERVICES) -> str:
    """What log lines call the service of that name; an unknown name as it is, as other programs may log, too."""
    wanted = name.lower().replace("_", "-")
    return next((each.logged_name for each in table if wanted in (each.name, each.compose_name)), name)


def find(name: str, table: Iterable[Service] = SERVICES) -> Service:
    """The service of that name. Raises `UnknownService`, `NotInThisRelease`."""
    known = {service.name: service for service in table}
    # Compose, logs and alerts use other names for some services: ml-worker, ml_worker.
    wanted = name.lower().replace("_", "-")
    name = next((each.name for each in known.values() if wanted in (each.name, each.compose_name)), name)
    if name not in known:
        raise UnknownService(name=name, known=", ".join(known))
    if not is_here(known[name]):
        raise NotInThisRelease(name=name)
    return known[name]

"""How the rooms of this service are plugged together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from foretell.kit.asgi import Application
from foretell.kit.routing import Route
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage.database import MonitoringDatabase


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every part may use."""

    settings: MonitoringSettings
    database: MonitoringDatabase
    #: The name of this process.
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one room adds to the service.

    `run(stopping)` works beside the routes until `stopping` is set, and returns soon after. If it raises, that is
    logged and it is called again after a moment, so it must be able to begin anew; a database that is away is no
    reason to catch anything.
    """

    routes: Sequence[Route] = ()
    run: Callable[[asyncio.Event], Awaitable[None]] | None = None
    #: An ASGI app around all routes, for answers that come in pieces; it passes on what is not its own.
    around: Callable[[Application], Application] | None = None
    #: Paths and schemas of the OpenAPI document (`contracts/openapi.py`), made when somebody asks for it.
    paths: Callable[[], dict[str, Any]] = dict
    schemas: Callable[[], dict[str, Any]] = dict
    #: Routes that machines ask all day: their requests are logged as debug unless something was wrong.
    quiet: Sequence[str] = ()
    #: More fields of `/health`.
    details: Callable[[], dict[str, Any]] = dict

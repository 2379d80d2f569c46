"""The interface of a part of this service."""

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
    """The objects that every part may use."""

    settings: MonitoringSettings
    database: MonitoringDatabase
    #: The name of this process.
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the service: its routes and its background work.

    `run(stopping)` works until `stopping` is set and returns soon after. If it raises, the error is logged and it is
    called again after a pause. So it must be restartable and need not catch `Unavailable`.
    """

    routes: Sequence[Route] = ()
    run: Callable[[asyncio.Event], Awaitable[None]] | None = None
    #: ASGI middleware around all routes, for streamed responses; it passes all other requests on.
    around: Callable[[Application], Application] | None = None
    #: Paths and schemas of the OpenAPI document (`contracts/openapi.py`), built on request.
    paths: Callable[[], dict[str, Any]] = dict
    schemas: Callable[[], dict[str, Any]] = dict
    #: Routes that are polled constantly: their requests are logged at debug level unless they fail.
    quiet: Sequence[str] = ()
    #: More fields of `/health`.
    details: Callable[[], dict[str, Any]] = dict

"""Assembles the monitoring service from its parts, each with routes and background work."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog

import foretell
from foretell.kit import metrics
from foretell.kit.asgi import Application, Operations
from foretell.kit.clock import now
from foretell.kit.errors import ForetellError
from foretell.kit.lifecycle import run, serve_http
from foretell.kit.own_pages import OwnPages
from foretell.kit.pauses import set_within
from foretell.kit.request_log import OPERATIONS, RequestLog
from foretell.kit.routing import Answer, Request, Route, Routes, bytes_answer
from foretell.kit.swagger import PATHS, Documentation
from foretell.services.monitoring import records
from foretell.services.monitoring.access import Access
from foretell.services.monitoring.migrations.run import migrate_when_possible
from foretell.services.monitoring.openapi import openapi
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.routes import alerts, drift, heartbeats, queues, reports, targets
from foretell.services.monitoring.settings import BODY_SETTING, MonitoringSettings
from foretell.services.monitoring.storage import instances
from foretell.services.monitoring.storage.database import MonitoringDatabase

log = structlog.get_logger()

#: Lower priority, so that on a busy machine predictions come first.
_NICENESS = 10
#: The pause before background work that failed is restarted.
_AGAIN_S = 2.0
#: How long the shutdown waits for an unavailable database.
_GOODBYE_S = 2.0


def parts_of(surroundings: Surroundings) -> list[Part]:
    """Every part of the service."""
    return [
        records.part(surroundings),
        heartbeats.part(surroundings),
        drift.part(surroundings),
        alerts.part(surroundings),
        reports.part(surroundings),
        queues.part(surroundings),
        targets.part(surroundings),
    ]


def build(parts: Sequence[Part], surroundings: Surroundings) -> Application:
    """The service as one ASGI app of these parts."""
    settings, database = surroundings.settings, surroundings.database
    token = settings.monitoring_token.get_secret_value()

    def details() -> dict[str, Any]:
        return {name: value for part in parts for name, value in part.details().items()}

    operations = Operations(
        "monitoring_service",
        instance=surroundings.instance,
        version=foretell.__version__,
        checks={"database": database.ping},
        needed_to_serve=["database"],
        details=details,
    )
    routes = Routes(
        [*(route for part in parts for route in part.routes), Route("GET", "/metrics", _show_metrics)],
        max_body_bytes=settings.monitoring_max_body_bytes,
        body_setting=BODY_SETTING,
        parts=[
            operations,
            Documentation("Foretell monitoring service", lambda: openapi(parts, token_needed=bool(token))),
        ],
    )
    app: Application = routes
    for part in parts:
        if part.around is not None:
            app = part.around(app)
    return RequestLog(
        # With a token, any host name is accepted. Without one, requests from other web pages are refused.
        OwnPages(Access(app, token), names_refused=not token, own_names=settings.monitoring_own_names),
        paths=[*routes.paths, *PATHS],
        quiet_routes=[*OPERATIONS, *(path for part in parts for path in part.quiet)],
        # Otherwise most traces would be heartbeats and log shipping.
        begins_traces=False,
    )


async def _show_metrics(request: Request) -> Answer:
    """This process's own metrics. The route is here because `POST /metrics` has the same path."""
    return bytes_answer(metrics.render(), metrics.CONTENT_TYPE.encode())


async def serve(settings: MonitoringSettings, instance: str, stopping: asyncio.Event) -> None:
    """Run the monitoring service until `stopping` is set."""
    database = MonitoringDatabase(settings)
    surroundings = Surroundings(settings, database, instance)
    parts = parts_of(surroundings)
    # HTTP starts at once: while the database is unavailable, senders get 503.
    http = asyncio.create_task(serve_http(build(parts, surroundings), settings, stopping))
    working = asyncio.create_task(_work(parts, database, stopping))
    try:
        # When one ends, by a stop or by an error, the other is ended, too.
        await asyncio.wait({http, working}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.set()
        await asyncio.gather(http, working)
        await _say_goodbye(database, instance)
        await database.close()


async def _say_goodbye(database: MonitoringDatabase, instance: str) -> None:
    with suppress(ForetellError, TimeoutError):
        async with asyncio.timeout(_GOODBYE_S), database.transaction() as connection:
            await instances.mark_stopped(connection, instance, now())


async def _work(parts: Sequence[Part], database: MonitoringDatabase, stopping: asyncio.Event) -> None:
    """Run the background work of the parts as soon as the database is available and migrated."""
    await migrate_when_possible(database, stopping)
    await asyncio.gather(*(_keep_running(part.run, stopping) for part in parts if part.run is not None))
    await stopping.wait()


async def _keep_running(work: Callable[[asyncio.Event], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Run `work` until it returns; restart it when it fails."""
    while not stopping.is_set():
        try:
            await work(stopping)
        except ForetellError as error:
            log.warning("work_postponed", work=work.__qualname__, reason=error.message)
        except Exception:
            log.exception("work_failed", work=work.__qualname__)
        else:
            return
        await set_within(stopping, _AGAIN_S)


def main() -> None:
    """Run the monitoring service in the foreground, with its settings from the environment."""
    settings = MonitoringSettings()
    os.nice(_NICENESS)
    run("monitoring_service", settings, lambda instance, stopping: serve(settings, instance, stopping))

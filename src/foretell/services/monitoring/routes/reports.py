"""`GET /reports/health`, `latency`, `throughput`, `errors`, `workers`, `queues`, `shadows`, `revenue`, `overview`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.openapi import json_answer as answer_of
from foretell.contracts.openapi import problem_answers, query_parameter, reference, struct_schemas
from foretell.contracts.reports.activity import Errors, Latency, Queues, Revenue, Shadows, Throughput, Workers
from foretell.contracts.reports.condition import Health, Overview
from foretell.kit.clock import now
from foretell.kit.routing import Answer, Handler, Request, Route, json_answer
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.reports import revenue as revenues
from foretell.services.monitoring.reports.errors import errors
from foretell.services.monitoring.reports.health import health
from foretell.services.monitoring.reports.latency import latency
from foretell.services.monitoring.reports.overview import overview
from foretell.services.monitoring.reports.period import Period
from foretell.services.monitoring.reports.queues import queues
from foretell.services.monitoring.reports.revenue import RevenueBook
from foretell.services.monitoring.reports.shadows import shadows
from foretell.services.monitoring.reports.throughput import DEFAULT_POINTS, MOST_POINTS, throughput
from foretell.services.monitoring.reports.workers import workers
from foretell.services.monitoring.routes.filters import known_only, whole_number
from foretell.services.monitoring.routes.periods import PARAMETERS, period_of
from foretell.services.monitoring.storage.database import MonitoringDatabase

#: Reports whose only parameter is a period, with their answers.
_OVER_A_PERIOD: Mapping[str, tuple[Callable[[AsyncConnection, Period], Awaitable[msgspec.Struct]], type, str]] = {
    "errors": (errors, Errors, "Errors of requests, predictions and logs"),
    "workers": (workers, Workers, "Workers and their tasks"),
    "queues": (queues, Queues, "Queue depths and dead letters"),
    "shadows": (shadows, Shadows, "Agreement of shadow versions"),
    "overview": (overview, Overview, "Key figures"),
}


class Reports:
    """The routes."""

    def __init__(self, database: MonitoringDatabase) -> None:
        self._database = database

    @property
    def routes(self) -> list[Route]:
        """All of them."""
        handlers: dict[str, Handler] = {
            "health": self.health,
            "throughput": self.throughput,
            "latency": self.latency,
            "revenue": self.revenue,
            **{name: self._over_a_period(report) for name, (report, _, _) in _OVER_A_PERIOD.items()},
        }
        return [Route("GET", _path(name), handler) for name, handler in handlers.items()]

    def _over_a_period(self, report: Callable[[AsyncConnection, Period], Awaitable[msgspec.Struct]]) -> Handler:
        async def answer(request: Request) -> Answer:
            period = period_of(request.query(), now())
            async with self._database.snapshot() as connection:
                return json_answer(await report(connection, period))

        return answer

    async def health(self, request: Request) -> Answer:
        """The current health of everything."""
        known_only(request.query(), ())
        async with self._database.snapshot() as connection:
            return json_answer(await health(connection, now()))

    async def throughput(self, request: Request) -> Answer:
        """The throughput over time."""
        query = request.query()
        period = period_of(query, now(), also=["points"])
        points = whole_number(query, "points", DEFAULT_POINTS, least=1, most=MOST_POINTS)
        async with self._database.snapshot() as connection:
            return json_answer(await throughput(connection, period, points))

    async def latency(self, request: Request) -> Answer:
        """All durations; with `points` also over time."""
        query = request.query()
        period = period_of(query, now(), also=["points"])
        points = whole_number(query, "points", 0, least=0, most=MOST_POINTS)
        async with self._database.snapshot() as connection:
            return json_answer(await latency(connection, period, points))

    async def revenue(self, request: Request) -> Answer:
        """Revenue by model and day."""
        query = known_only(request.query(), ["days"])
        days = whole_number(query, "days", revenues.DEFAULT_DAYS, least=1, most=revenues.MOST_DAYS)
        async with self._database.snapshot() as connection:
            return json_answer(await revenues.revenue(connection, now().date(), days))


def part(surroundings: Surroundings) -> Part:
    """Reports, as a part of the service."""
    return Part(
        routes=Reports(surroundings.database).routes,
        run=RevenueBook(surroundings.database).run,
        paths=_paths,
        schemas=_schemas,
    )


def _path(name: str) -> str:
    return f"/reports/{name}"


_ABOUT_THE_PERIOD = {
    "since": "The beginning, ISO 8601, without a zone UTC",
    "until": "The end; now, if it is left out",
    "window": "Its length in place of one of them: 90s, 5m, 2h, 7d. Without any of the three, 5m",
}


def _paths() -> dict[str, Any]:
    period = [query_parameter(name, _ABOUT_THE_PERIOD[name]) for name in PARAMETERS]
    points = query_parameter("points", f"Into how many points, at most: 1 to {MOST_POINTS}", least=1, most=MOST_POINTS)
    days = query_parameter(
        "days", f"How many days, today among them: 1 to {revenues.MOST_DAYS}", least=1, most=revenues.MOST_DAYS
    )
    operations = {
        "health": _operation("health", "Health of services and instances", Health, []),
        "throughput": _operation("throughput", "Throughput over time", Throughput, [*period, points]),
        "latency": _operation(
            "latency",
            "Latency of requests, model runs and predictions",
            Latency,
            [*period, query_parameter("points", f"And in so many points: 0 (the default) to {MOST_POINTS}", least=0)],
        ),
        "revenue": _operation("revenue", "Revenue by model and day", Revenue, [days]),
        **{name: _operation(name, summary, shape, period) for name, (_, shape, summary) in _OVER_A_PERIOD.items()},
    }
    return {_path(name): {"get": operation} for name, operation in operations.items()}


def _operation(name: str, summary: str, shape: type, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "tags": ["reports"],
        "operationId": f"report_{name}",
        "summary": summary,
        "parameters": parameters,
        "responses": {"200": answer_of("The report", reference(shape.__name__)), **problem_answers(422, 503)},
    }


def _schemas() -> dict[str, Any]:
    return struct_schemas([Health, Throughput, Latency, Revenue, *(shape for _, shape, _ in _OVER_A_PERIOD.values())])

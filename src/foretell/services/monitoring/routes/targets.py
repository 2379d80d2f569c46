"""`GET /prometheus/targets`: the running instances, for Prometheus's `http_sd_configs`."""

from typing import Any

from foretell.contracts.openapi import json_answer as answer_of
from foretell.contracts.openapi import problem_answers
from foretell.kit.routing import Answer, Request, Route, json_answer
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.routes.filters import known_only
from foretell.services.monitoring.storage.database import MonitoringDatabase
from foretell.services.monitoring.storage.instances import list_instances

PATH = "/prometheus/targets"


class Targets:
    """The route."""

    def __init__(self, database: MonitoringDatabase) -> None:
        self._database = database

    async def show(self, request: Request) -> Answer:
        """Every live instance with an HTTP address, each as its own group."""
        known_only(request.query(), ())
        async with self._database.snapshot() as connection:
            live = await list_instances(connection, live_only=True)
        return json_answer(
            [
                {"targets": [each.address], "labels": {"service": each.service, "instance": each.instance}}
                for each in live
                if each.address
            ]
        )


def part(surroundings: Surroundings) -> Part:
    """The targets, as a part of the service."""
    targets = Targets(surroundings.database)
    # Prometheus polls this every few seconds.
    return Part(routes=[Route("GET", PATH, targets.show)], paths=_paths, quiet=[PATH])


_GROUP: dict[str, Any] = {
    "type": "object",
    "required": ["targets", "labels"],
    "properties": {
        "targets": {"type": "array", "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def _paths() -> dict[str, Any]:
    example = [{"targets": ["127.0.0.1:8001"], "labels": {"service": "model_service", "instance": "model-1"}}]
    operation = {
        "tags": ["prometheus"],
        "operationId": "list_targets",
        "summary": "Where Prometheus finds every instance that runs",
        "responses": {
            "200": answer_of("The targets", {"type": "array", "items": _GROUP}, example),
            **problem_answers(422, 503),
        },
    }
    return {PATH: {"get": operation}}

"""`GET /models` and `GET /models/{name}`: models with their schemas, and why some are not ready."""

from typing import Any

from foretell.kit.routing import Answer, Request, Route, json_answer
from foretell.services.model.models import Models


class ModelList:
    """The routes."""

    def __init__(self, models: Models) -> None:
        self._models = models

    @property
    def routes(self) -> list[Route]:
        return [Route("GET", "/models", self.list), Route("GET", "/models/{name}", self.show)]

    async def list(self, request: Request) -> Answer:
        """The default version of each model, and the packages that can't be served."""
        registry = self._models.registry
        return json_answer(
            {
                "items": [self._described(name) for name in registry.names],
                "unavailable": [{"name": each.name, "reason": each.reason} for each in registry.unavailable],
            }
        )

    async def show(self, request: Request) -> Answer:
        """One version of a model."""
        return json_answer(self._described(request.parameters["name"], request.query_value("version")))

    def _described(self, name: str, version: str | None = None) -> dict[str, Any]:
        package = self._models.package(name, version)
        status = self._models.status(name, package.version)
        registry = self._models.registry
        described = {
            "name": name,
            "version": package.version,
            "default_version": registry.default_versions[name],
            "versions": registry.versions(name),
            "ready": status.state == "READY",
            "title": package.title,
            "description": package.description,
            "runtime": package.manifest.runtime,
            "max_batch": package.max_batch,
            "has_preprocessing": package.has_preprocessing,
            "input_schema": package.input_schema,
            "features_schema": package.features_schema,
            "output_schema": package.output_schema,
            "labels": package.labels,
            "examples": package.examples,
        }
        return described if not status.reason else described | {"reason": status.reason}

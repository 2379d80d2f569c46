"""`GET /models` and `GET /models/{name}`: preprocessing of models with their schemas, and why some can't be used."""

from typing import Any

from foretell.kit.routing import Answer, Request, Route, json_answer
from foretell.services.preprocessing.preprocessors import Preprocessors


class ModelList:
    """The routes."""

    def __init__(self, preprocessors: Preprocessors) -> None:
        self._preprocessors = preprocessors

    @property
    def routes(self) -> list[Route]:
        return [Route("GET", "/models", self.list), Route("GET", "/models/{name}", self.show)]

    async def list(self, request: Request) -> Answer:
        """The default version of each model, and the packages that can't be read."""
        registry = self._preprocessors.registry
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
        preprocessor = self._preprocessors.get(name, version)
        package = preprocessor.package
        described = {
            "name": name,
            "version": package.version,
            "default_version": self._preprocessors.registry.default_versions[name],
            "versions": self._preprocessors.registry.versions(name),
            "ready": not preprocessor.reason,
            "has_preprocessing": package.has_preprocessing,
            "title": package.title,
            "description": package.description,
            "input_schema": package.input_schema,
            "features_schema": package.features_schema,
        }
        return described | {"reason": preprocessor.reason} if preprocessor.reason else described

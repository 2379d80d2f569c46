"""`GET /reports/drift`: how far current inputs and outputs of models differ from their training data."""

from typing import Any

import msgspec

from foretell.contracts import openapi
from foretell.contracts.reports.drift import DriftReport, VersionFinding
from foretell.inference.live import LiveRegistry
from foretell.kit.routing import Answer, Request, Route, json_answer
from foretell.services.monitoring.drift.findings import latest
from foretell.services.monitoring.drift.watching import DriftWatch
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.routes.filters import WrongParameter, known_only
from foretell.services.monitoring.storage.database import MonitoringDatabase


class Drift:
    """The route."""

    def __init__(self, database: MonitoringDatabase, windows_s: list[float]) -> None:
        self._database = database
        self._windows_s = windows_s

    async def report(self, request: Request) -> Answer:
        """The last findings, of all versions and windows or of the requested ones."""
        given = known_only(request.query(), ("model", "version", "window"))
        for name in ("model", "version"):
            if "\0" in given.get(name, ""):
                raise WrongParameter(name, "must have no NUL")
        window_s = self._window_s(given.get("window"))
        async with self._database.snapshot() as connection:
            found = await latest(connection, model=given.get("model"), version=given.get("version"))
        if window_s is not None:
            found = [_only(each, window_s) for each in found]
        return json_answer(DriftReport(self._windows_s, found))

    def _window_s(self, text: str | None) -> float | None:
        if text is None:
            return None
        wanted = next((each for each in self._windows_s if f"{each:g}" == text), None)
        if wanted is None:
            known = ", ".join(f"{each:g}" for each in self._windows_s)
            raise WrongParameter("window", f"must be the length of a window in seconds: {known}")
        return wanted


def _only(found: VersionFinding, window_s: float) -> VersionFinding:
    return msgspec.structs.replace(found, windows=[each for each in found.windows if each.window_s == window_s])


def _paths() -> dict[str, Any]:
    return {
        "/reports/drift": {
            "get": {
                "tags": ["Reports"],
                "summary": "How far what models are asked is from what they were trained on",
                "description": "Features and outputs of each model version, compared with the reference of its "
                "package. A version is as the longest window says that has enough rows.",
                "parameters": [
                    openapi.query_parameter("model", "Only this model."),
                    openapi.query_parameter("version", "Only this version."),
                    openapi.query_parameter("window", "Only the window of this length, in seconds.", least=1),
                ],
                "responses": {"200": openapi.json_answer("What the last look found.", openapi.reference("DriftReport"))}
                | openapi.problem_answers(422, 503),
            }
        }
    }


def part(surroundings: Surroundings) -> Part:
    """Drift detection, as a part of the service."""
    settings, database = surroundings.settings, surroundings.database
    registry = LiveRegistry.installed(settings.models_dir, settings.data_dir)
    watch = DriftWatch(
        database, registry, settings.monitoring_drift_window_s, every_s=settings.monitoring_drift_every_s
    )
    return Part(
        routes=[Route("GET", "/reports/drift", Drift(database, watch.windows_s).report)],
        run=watch.run,
        paths=_paths,
        schemas=lambda: openapi.struct_schemas([DriftReport]),
    )

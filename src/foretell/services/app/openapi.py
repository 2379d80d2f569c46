"""The OpenAPI document: FastAPI's, with the parts that FastAPI does not know.

These are predictions (msgspec structs), `POST /predictions/predict` (plain ASGI), the operational routes, and the
problems that every route can answer.
"""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from foretell.contracts import fields, http
from foretell.contracts.reports import activity, alert_rules, condition, drift
from foretell.domain import errors
from foretell.kit.asgi import BodyTooLarge
from foretell.kit.errors import ForetellError, Unavailable
from foretell.kit.problems import InvalidRequest, problem_bytes
from foretell.services.app.problems import NotAcceptable
from foretell.services.app.submit_operation import SUBMIT_OPERATION, SUBMIT_PATH

_REF = "#/components/schemas/{}"
_STRUCTS: tuple[type[msgspec.Struct], ...] = (
    *(http.Prediction, http.PredictionDetails, http.PredictionPage, http.EventPage, fields.Field),
    *(activity.Throughput, activity.Latency, activity.Errors, activity.Workers, activity.Queues, activity.Shadows),
    *(activity.Revenue, activity.DeadLetters, activity.ShownRecord, activity.MetricValue),
    *(condition.Glance, condition.Silenced, drift.DriftReport, alert_rules.RuleList),
)
_WAIT = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}}
_PROBLEMS = {
    400: ("The request was refused.", {}),
    401: (
        "The credentials are missing or wrong.",
        {"WWW-Authenticate": {"description": "How to authenticate", "schema": {"type": "string"}}},
    ),
    402: ("The credits do not suffice.", {}),
    403: ("Your account may not do this.", {}),
    404: ("There is no such thing, or it is somebody else's.", {}),
    409: ("The present state of things does not allow it.", {}),
    413: ("The body is too large.", {}),
    422: ("The request does not fit.", {}),
    429: ("Too many attempts.", _WAIT),
    503: ("A part that is needed for this is away.", _WAIT),
}
#: The example of each status: the error that callers see most often.
_EXAMPLES: dict[int, ForetellError] = {
    400: NotAcceptable(reason="Bad Request"),
    401: errors.InvalidToken(),
    402: errors.NotEnoughCredits(price=2, available=1),
    403: errors.Forbidden(),
    404: errors.NotFound(what="prediction"),
    409: errors.UsernameTaken(username="ada"),
    413: BodyTooLarge(max_bytes=1024 * 1024),
    422: InvalidRequest([{"detail": "must be at least 0", "pointer": "#/input/distance"}]),
    429: errors.TooManyAttempts(wait_s=30),
    503: Unavailable(part="database"),
}


def problem_answers(*wrong: int | ForetellError) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route, in addition to 503, which every route can answer.

    Give a status, or an error if the usual example of its status does not fit this route.
    """
    found = [_EXAMPLES[each] if isinstance(each, int) else each for each in (*wrong, 503)]
    return {error.status: _problem(error) for error in found}


def struct_answer(struct: type[msgspec.Struct], description: str, **more: Any) -> dict[str, Any]:
    """A response with one of the msgspec structs of this document."""
    content = {"application/json": {"schema": {"$ref": _REF.format(struct.__name__)}}}
    return {"description": description, "content": content, **more}


def _problem(error: ForetellError) -> dict[str, Any]:
    description, headers = _PROBLEMS[error.status]
    example = msgspec.json.decode(problem_bytes(error)[2])
    content = {"application/problem+json": {"schema": {"$ref": _REF.format("Problem")}, "example": example}}
    answer: dict[str, Any] = {"description": description, "content": content}
    return answer | ({"headers": headers} if headers else {})


class Api(FastAPI):
    """FastAPI with our complete OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            schemas = document["components"]["schemas"]
            schemas.update(_schemas())
            schemas["Model"]["properties"]["fields"]["items"] = {"$ref": _REF.format("Field")}
            paths = document["paths"]
            paths[SUBMIT_PATH] = {"post": SUBMIT_OPERATION | {"responses": _submit_answers()}}
            document["paths"] = dict(sorted(paths.items()))
            _drop_frameworks_422(document)
            _add_csrf_refusals(document)
            self.openapi_schema = document
        return self.openapi_schema


def _submit_answers() -> dict[str, Any]:
    answers = SUBMIT_OPERATION["responses"] | problem_answers(
        401, 402, errors.NotFound(what="model"), errors.IdempotencyKeyInFlight(), 413, 422
    )
    return {str(status): answer for status, answer in answers.items()}


def _schemas() -> dict[str, Any]:
    _, structs = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    _, models = models_json_schema(
        [(http.Problem, "validation"), (http.NewPrediction, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    return {**structs, **models["$defs"]}


def _drop_frameworks_422(document: dict[str, Any]) -> None:
    # FastAPI adds a 422 to every route with a parameter. None of our routes uses it; each declares its own problems.
    for operations in document["paths"].values():
        for operation in operations.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", ()):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _add_csrf_refusals(document: dict[str, Any]) -> None:
    # A request that changes something and uses the cookie may be refused without its CSRF token.
    for operations in document["paths"].values():
        for method, operation in operations.items():
            if method != "get" and operation.get("security"):
                operation["responses"].setdefault("403", _problem(_EXAMPLES[403]))

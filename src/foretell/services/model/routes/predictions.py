"""`POST /predict` for the flight-delay model, `POST /models/{name}/predict` for any: the hot routes.

The engine checks rows by the models' own schemas, so these routes do not check them.
"""

from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

import foretell
from foretell.contracts.messages import Failure, Stage
from foretell.inference.field_errors import field_errors
from foretell.inference.package import ModelPackage
from foretell.kit.asgi import Body
from foretell.kit.clock import now
from foretell.kit.errors import ForetellError
from foretell.kit.problems import MAX_ERRORS, Failed, InvalidRequest, MalformedBody, pointer
from foretell.kit.routing import Answer, Batched, Pending, Request, Route, json_answer
from foretell.services.model.calls import ModelCalls, Row
from foretell.services.model.models import Models

FLIGHT_DELAY = "flight-delay"

_decode = msgspec.json.Decoder().decode


class ModelFailed(Failed):
    """The model failed. See `errors` for the rows."""

    code = "model_error"

    def __init__(self, errors: Sequence[dict[str, str]]) -> None:
        super().__init__(errors=list(errors))


class Predictions:
    """Answers at once. `max_rows` limits the rows of a request."""

    def __init__(self, models: Models, *, max_rows: int) -> None:
        self._models = models
        self._max_rows = max_rows

    @property
    def routes(self) -> list[Route]:
        return [
            Route("POST", "/predict", Batched(self.predict_flight)),
            Route("POST", "/models/{name}/predict", Batched(self.predict)),
        ]

    def predict_flight(self, request: Request, body: Body) -> Pending:
        """Predict from the features of one flight."""
        row = decode(request, body)
        calls = self._models.get(FLIGHT_DELAY)

        def answer(output: Row | Failure) -> Answer:
            if isinstance(output, Failure):
                raise refusal(calls.package, "features", [row], [output])
            return json_answer({**output, "timestamp": now(), "service_version": foretell.__version__})

        return Pending(calls.singles["features"], row, answer)

    def predict(self, request: Request, body: Body) -> Pending | Coroutine[Any, Any, Answer]:
        """Predict from one value or a list, as features or as raw input (see `openapi.py`)."""
        value, stage, path = _unwrap(decode(request, body))
        calls = self._models.get(request.parameters["name"], request.query_value("version"))
        if type(value) is list:
            return self._predict_many(calls, self._bounded(value, path), stage, path)

        def answer(output: Row | Failure) -> Answer:
            if isinstance(output, Failure):
                raise refusal(calls.package, stage, [value], [output], *path)
            return _predicted(calls.package, output)

        return Pending(calls.singles[stage], value, answer)

    async def _predict_many(self, calls: ModelCalls, rows: list[Any], stage: Stage, path: Sequence[str]) -> Answer:
        outputs = await calls.predict_many(rows, stage)
        if Failure in map(type, outputs):
            raise refusal(calls.package, stage, rows, outputs, *path, listed=True)
        return _predicted(calls.package, {"outputs": outputs})

    def _bounded(self, rows: list[Any], path: Sequence[str]) -> list[Any]:
        if 0 < len(rows) <= self._max_rows:
            return rows
        raise InvalidRequest([{"detail": f"must have 1 to {self._max_rows} items", "pointer": pointer(*path)}])


def _predicted(package: ModelPackage, answer: dict[str, Any]) -> Answer:
    about = {"model_version": package.version, "timestamp": now(), "service_version": foretell.__version__}
    return json_answer({**about, **answer})


def decode(request: Request, body: Body) -> Any:
    """Decode the JSON of a body. Raises `MalformedBody`, `BodyTooHeavy`, `TooMuchUnderWay`."""
    request.weigh(body)
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBody from None


def _unwrap(body: Any) -> tuple[Any, Stage, tuple[str, ...]]:
    """The value or values, their stage, and their path in the body."""
    if type(body) is dict and len(body) == 1:
        if "features" in body:
            return body["features"], "features", ("features",)
        if "input" in body:
            return body["input"], "input", ("input",)
    return body, "features", ()


def refusal(
    package: ModelPackage,
    stage: Stage,
    rows: Sequence[Any],
    outcomes: Sequence[Any],
    *path: str | int,
    listed: bool = False,
) -> ForetellError:
    """The error with the reason of each failed row; `path` is the place of the rows in the body."""
    errors: list[dict[str, str]] = []
    model_failed = False
    for index, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        if isinstance(outcome, Failure):
            model_failed = model_failed or outcome.code != "invalid_input"
            errors += field_errors(package, stage, row, outcome, *path, *([index] if listed else []))
            if len(errors) >= MAX_ERRORS:
                break
    return ModelFailed(errors) if model_failed else InvalidRequest(errors)

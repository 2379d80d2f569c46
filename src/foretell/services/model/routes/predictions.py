"""`POST /predict` for the flight-delay model, `POST /models/{name}/predict` for any: the hot routes.

The engine checks rows by the models' own schemas, so these routes do not check them.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import foretell
from foretell.contracts.messages import Failure, Stage
from foretell.inference.field_errors import field_errors
from foretell.inference.package import ModelPackage
from foretell.kit.asgi import JSON, Body
from foretell.kit.clock import now
from foretell.kit.errors import ForetellError
from foretell.kit.json_rows import LARGE_BYTES, decode_fields, decode_outside, decode_rows, decode_whole
from foretell.kit.problems import MAX_ERRORS, Failed, InvalidRequest, pointer
from foretell.kit.routing import Answer, Batched, Pending, Request, Route, bytes_answer, encode, json_answer
from foretell.services.model.calls import ModelCalls, Row
from foretell.services.model.models import Models

FLIGHT_DELAY = "flight-delay"


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
                raise refusal(calls.package, "features", row, output)
            return json_answer({**output, "timestamp": now(), "service_version": foretell.__version__})

        return Pending(calls.singles["features"], row, answer)

    def predict(self, request: Request, body: Body) -> Pending | Coroutine[Any, Any, Answer]:
        """Predict from one value or a list, as features or as raw input (see `openapi.py`)."""
        value, stage, path = _read(request, body)
        calls = self._models.get(request.parameters["name"], request.query_value("version"))
        if type(value) is list:
            return self._predict_many(calls, self._bounded(value, path), stage, path)

        def answer(output: Row | Failure) -> Answer:
            if isinstance(output, Failure):
                raise refusal(calls.package, stage, value, output, *path)
            return json_answer({**_about(calls.package), **output})

        return Pending(calls.singles[stage], value, answer)

    async def _predict_many(self, calls: ModelCalls, rows: list[Any], stage: Stage, path: Sequence[str]) -> Answer:
        refused = Refused(calls.package, stage, path)
        parts: list[bytes] = []
        at_once = calls.package.max_batch
        for start in range(0, len(rows), at_once):
            if start:
                # Other requests run in between.
                await asyncio.sleep(0)
            part = decode_rows(rows[start : start + at_once])
            outputs = await calls.predict_many(part, stage)
            if Failure in map(type, outputs):
                refused.add(part, outputs, start)
                if refused.full:
                    break
            elif not refused.errors:
                parts.append(encode(outputs)[1:-1])
        if refused.errors:
            raise refused.error()
        head = encode(_about(calls.package))[:-1]
        return bytes_answer(b"".join((head, b',"outputs":[', b",".join(parts), b"]}")), JSON)

    def _bounded(self, rows: list[Any], path: Sequence[str]) -> list[Any]:
        if 0 < len(rows) <= self._max_rows:
            return rows
        raise InvalidRequest([{"detail": f"must have 1 to {self._max_rows} items", "pointer": pointer(*path)}])


def _about(package: ModelPackage) -> dict[str, Any]:
    return {"model_version": package.version, "timestamp": now(), "service_version": foretell.__version__}


def decode(request: Request, body: Body) -> Any:
    """Decode the JSON of a body. Raises `MalformedBody`, `BodyTooHeavy`, `TooMuchUnderWay`."""
    request.weigh(body)
    return decode_whole(body)


def _read(request: Request, body: Body) -> tuple[Any, Stage, tuple[str, ...]]:
    """The value or values of a body, their stage, and their path in it. A large list may have rows that are still JSON.

    Raises `MalformedBody`, `BodyTooHeavy`, `TooMuchUnderWay`.
    """
    if len(body) <= LARGE_BYTES:
        return _unwrap(decode(request, body))
    request.weigh(body)
    fields = decode_fields(body)
    if fields is None:
        return decode_outside(body), "features", ()
    value, stage, path = _unwrap(fields)
    return (decode_outside(value) if path else decode_whole(body)), stage, path


def _unwrap(body: Any) -> tuple[Any, Stage, tuple[str, ...]]:
    """The value or values, their stage, and their path in the body."""
    if type(body) is dict and len(body) == 1:
        if "features" in body:
            return body["features"], "features", ("features",)
        if "input" in body:
            return body["input"], "input", ("input",)
    return body, "features", ()


class Refused:
    """The errors of rows that were refused or failed; `path` is the place of the rows in the body."""

    def __init__(self, package: ModelPackage, stage: Stage, path: Sequence[str | int], *, listed: bool = True) -> None:
        self._package = package
        self._stage: Stage = stage
        self._path = path
        self._listed = listed
        self._model_failed = False
        self.errors: list[dict[str, str]] = []

    @property
    def full(self) -> bool:
        """Whether further errors would not be shown."""
        return len(self.errors) >= MAX_ERRORS

    def add(self, rows: Sequence[Any], outcomes: Sequence[Any], first: int = 0) -> None:
        """The failures among `outcomes`; `first` is the position of the first row."""
        for index, (row, outcome) in enumerate(zip(rows, outcomes, strict=True), first):
            if isinstance(outcome, Failure):
                self._model_failed = self._model_failed or outcome.code != "invalid_input"
                place = [index] if self._listed else []
                self.errors += field_errors(self._package, self._stage, row, outcome, *self._path, *place)
                if self.full:
                    break

    def error(self) -> ForetellError:
        """What is raised for them."""
        return ModelFailed(self.errors) if self._model_failed else InvalidRequest(self.errors)


def refusal(package: ModelPackage, stage: Stage, row: Any, outcome: Failure, *path: str) -> ForetellError:
    """The error with the reason of the one row; `path` is its place in the body."""
    refused = Refused(package, stage, path, listed=False)
    refused.add([row], [outcome])
    return refused.error()

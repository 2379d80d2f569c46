"""`POST /preprocess`, `/batch_preprocess` and `/models/{name}/preprocess`: raw fields in, features out."""

from collections.abc import Sequence
from typing import Any

import msgspec

from foretell.contracts.messages import Failure
from foretell.inference.field_errors import field_errors
from foretell.inference.package import ModelPackage
from foretell.kit.asgi import Body
from foretell.kit.errors import ForetellError
from foretell.kit.problems import MAX_ERRORS, InvalidRequest, MalformedBody, pointer
from foretell.kit.routing import Answer, Request, Route, json_answer
from foretell.services.preprocessing.preprocessors import Preprocessor, Preprocessors

FLIGHT_DELAY = "flight-delay"
_TIME = "departure_time"

_decode = msgspec.json.Decoder().decode


class InvalidTime(InvalidRequest):
    """A time must be HH:MM, from 00:00 to 23:59. See `errors` for where it is none."""

    code = "invalid_time"
    status = 400


class Features:
    """The routes. `max_rows` limits the rows of a request."""

    def __init__(self, preprocessors: Preprocessors, *, max_rows: int) -> None:
        self._preprocessors = preprocessors
        self._max_rows = max_rows

    @property
    def routes(self) -> list[Route]:
        return [
            Route("POST", "/preprocess", self.preprocess_flight),
            Route("POST", "/batch_preprocess", self.preprocess_flights),
            Route("POST", "/models/{name}/preprocess", self.preprocess),
        ]

    async def preprocess_flight(self, request: Request) -> Answer:
        """One flight."""
        row = _read(request, await request.body())
        return json_answer(await self._one(self._preprocessors.get(FLIGHT_DELAY), row))

    async def preprocess_flights(self, request: Request) -> Answer:
        """A list of flights."""
        rows = _read(request, await request.body())
        if not isinstance(rows, list):
            raise InvalidRequest([{"detail": "must be a list of flights", "pointer": pointer()}])
        return json_answer(await self._many(self._preprocessors.get(FLIGHT_DELAY), rows))

    async def preprocess(self, request: Request) -> Answer:
        """One input of any model, or a list of them."""
        preprocessor = self._preprocessors.get(request.parameters["name"], request.query_value("version"))
        value = _read(request, await request.body())
        one_or_many = self._many if isinstance(value, list) else self._one
        return json_answer(await one_or_many(preprocessor, value))

    async def _one(self, preprocessor: Preprocessor, row: Any) -> Any:
        (features,) = await preprocessor.run([row])
        if isinstance(features, Failure):
            raise refusal(preprocessor.package, [row], [features])
        return features

    async def _many(self, preprocessor: Preprocessor, rows: list[Any]) -> Any:
        if len(rows) > self._max_rows:
            raise InvalidRequest([{"detail": f"must have at most {self._max_rows} items", "pointer": pointer()}])
        features = await preprocessor.run(rows) if rows else []
        if any(isinstance(each, Failure) for each in features):
            raise refusal(preprocessor.package, rows, features, listed=True)
        return features


def refusal(
    package: ModelPackage, rows: Sequence[Any], outcomes: Sequence[Any], *, listed: bool = False
) -> ForetellError:
    """The error with the reason of each failed row: 400 if all are invalid times, else 422."""
    errors: list[dict[str, str]] = []
    only_times = package.name == FLIGHT_DELAY
    for index, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        if isinstance(outcome, Failure):
            path = [index] if listed else []
            found = field_errors(package, "input", row, outcome, *path)
            is_time = isinstance(row, dict) and isinstance(row.get(_TIME), str)
            only_times = only_times and is_time and all(error["pointer"] == pointer(*path, _TIME) for error in found)
            errors += found
            if len(errors) >= MAX_ERRORS:
                break
    return InvalidTime(errors) if only_times else InvalidRequest(errors)


def _read(request: Request, body: Body) -> Any:
    request.weigh(body)
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBody from None

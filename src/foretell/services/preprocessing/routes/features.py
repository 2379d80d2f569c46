"""`POST /preprocess`, `/batch_preprocess` and `/models/{name}/preprocess`: raw fields in, features out."""

import asyncio
from collections.abc import Sequence
from typing import Any

from foretell.contracts.messages import Failure
from foretell.inference.field_errors import field_errors
from foretell.inference.package import ModelPackage
from foretell.kit.asgi import JSON, Body
from foretell.kit.errors import ForetellError
from foretell.kit.json_rows import LARGE_BYTES, decode_outside, decode_rows, decode_whole
from foretell.kit.problems import MAX_ERRORS, InvalidRequest, pointer
from foretell.kit.routing import Answer, Request, Route, bytes_answer, encode, json_answer
from foretell.services.preprocessing.preprocessors import Preprocessor, Preprocessors

FLIGHT_DELAY = "flight-delay"
_TIME = "departure_time"

#: How many rows of a request are values at a time.
_ROWS_AT_ONCE = 256


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
        return await self._many(self._preprocessors.get(FLIGHT_DELAY), rows)

    async def preprocess(self, request: Request) -> Answer:
        """One input of any model, or a list of them."""
        preprocessor = self._preprocessors.get(request.parameters["name"], request.query_value("version"))
        value = _read(request, await request.body())
        if isinstance(value, list):
            return await self._many(preprocessor, value)
        return json_answer(await self._one(preprocessor, value))

    async def _one(self, preprocessor: Preprocessor, row: Any) -> Any:
        (features,) = await preprocessor.run([row])
        if isinstance(features, Failure):
            refused = Refused(preprocessor.package, listed=False)
            refused.add([row], [features])
            raise refused.error()
        return features

    async def _many(self, preprocessor: Preprocessor, rows: list[Any]) -> Answer:
        if len(rows) > self._max_rows:
            raise InvalidRequest([{"detail": f"must have at most {self._max_rows} items", "pointer": pointer()}])
        refused = Refused(preprocessor.package)
        parts: list[bytes] = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            if start:
                # Other requests run in between.
                await asyncio.sleep(0)
            part = decode_rows(rows[start : start + _ROWS_AT_ONCE])
            features = await preprocessor.run(part)
            if any(isinstance(each, Failure) for each in features):
                refused.add(part, features, start)
                if refused.full:
                    break
            elif not refused.errors:
                parts.append(encode(features)[1:-1])
        if refused.errors:
            raise refused.error()
        return bytes_answer(b"".join((b"[", b",".join(parts), b"]")), JSON)


class Refused:
    """The errors of rows that were refused."""

    def __init__(self, package: ModelPackage, *, listed: bool = True) -> None:
        self._package = package
        self._listed = listed
        #: Whether every refused value is an invalid time.
        self._only_times = package.name == FLIGHT_DELAY
        self.errors: list[dict[str, str]] = []

    @property
    def full(self) -> bool:
        """Whether further errors would not be shown."""
        return len(self.errors) >= MAX_ERRORS

    def add(self, rows: Sequence[Any], outcomes: Sequence[Any], first: int = 0) -> None:
        """The failures among `outcomes`; `first` is the position of the first row."""
        for index, (row, outcome) in enumerate(zip(rows, outcomes, strict=True), first):
            if isinstance(outcome, Failure):
                path = [index] if self._listed else []
                found = field_errors(self._package, "input", row, outcome, *path)
                is_time = isinstance(row, dict) and isinstance(row.get(_TIME), str)
                times = all(error["pointer"] == pointer(*path, _TIME) for error in found)
                self._only_times = self._only_times and is_time and times
                self.errors += found
                if self.full:
                    break

    def error(self) -> ForetellError:
        """What is raised for them: 400 if all are invalid times, else 422."""
        return InvalidTime(self.errors) if self._only_times else InvalidRequest(self.errors)


def _read(request: Request, body: Body) -> Any:
    """The value of a body. A large list may have rows that are still JSON."""
    request.weigh(body)
    return decode_whole(body) if len(body) <= LARGE_BYTES else decode_outside(body)

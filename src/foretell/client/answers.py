"""Interprets answers: a value, an error to raise, or a reason to retry."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, cast

import httpx

from foretell.client.calls import Call, InvalidCall
from foretell.client.types import Prediction
from foretell.kit.errors import ForetellError, Outcome
from foretell.kit.randomness import RANDOM

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
#: Statuses that mean that the request had no effect, unless their `outcome` is "unknown".
_NOT_TAKEN = (429, 503)
#: Statuses of a proxy, which does not know whether the request had an effect.
_UNKNOWN = (502, 504)
#: The reason if a successful answer is not from the API.
SOMETHING_ELSE = "something else answers there"


class Unreachable(ForetellError):
    """Foretell does not answer at {url} ({reason}). Is it running? foretell status"""

    code = "unreachable"
    status = 503


class ApiError(ForetellError):
    """A problem that the API told us. `status_code` and `problem_code` are for programs, `message` is for people.

    `errors` say what is wrong with each field. `outcome` is "not_done", or "unknown" when it may have been done all
    the same. `retry_after_s` is after how many seconds it may be tried again, if the API says so.
    """

    def __init__(self, status_code: int, problem: dict[str, Any], *, retry_after_s: float | None = None) -> None:
        self.status_code = status_code
        self.problem_code = str(problem.get("code") or f"http_{status_code}")
        #: Whether the request took effect: "not_done", or "unknown" if it may have. A refusal is "not_done".
        self.outcome: Outcome = _outcome(status_code, problem)
        #: The problem of each field, as mappings with `detail` and `pointer`.
        self.errors = [each for each in problem.get("errors") or [] if isinstance(each, dict)]
        message = str(problem.get("detail") or problem.get("title") or f"The API answered with status {status_code}.")
        if self.errors:
            message = f"The request does not fit: {'; '.join(map(_sentence, self.errors))}."
        super().__init__(message, retry_after_s=retry_after_s)


def _outcome(status_code: int, problem: dict[str, Any]) -> Outcome:
    if problem.get("outcome") in ("not_done", "unknown"):
        return cast(Outcome, problem["outcome"])
    return "not_done" if status_code < 500 or status_code in _NOT_TAKEN else "unknown"


def _sentence(error: dict[str, Any]) -> str:
    detail = str(error.get("detail", "")).rstrip(".")
    place = str(error.get("pointer") or error.get("parameter") or error.get("header") or "").removeprefix("#/")
    return detail if place.rpartition("/")[2] in detail else f"{place} {detail}"


class NotEnded(ForetellError):
    """The prediction {id} has not ended within {timeout_s:g} s. It goes on; look again later."""

    code = "not_ended"
    status = 504


class PredictionFailed(ForetellError):
    """The prediction failed: {reason}. It costs nothing.

    `failure_code` is for programs: "invalid_input", "model_error", "timeout", "expired", "undeliverable",
    "input_too_large", "output_too_large", or "canceled". `prediction` is the whole prediction.
    """

    code = "prediction_failed"

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        failure = prediction.get("error")
        self.failure_code = failure["code"] if failure else prediction["status"]
        if prediction["status"] == "canceled":
            super().__init__("The prediction was canceled. It costs nothing.")
        else:
            super().__init__(reason=failure["message"].rstrip(".") if failure else "nobody says why")


Ended = TypeVar("Ended", bound=Prediction)


def succeeded(prediction: Ended) -> Ended:
    """The same prediction, if it succeeded. Raises `PredictionFailed`."""
    if prediction["status"] != "succeeded":
        raise PredictionFailed(prediction)
    return prediction


Reply = httpx.Response | httpx.TransportError

#: Errors in the request itself, for which a retry is useless.
_OUR_FAULT = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)


def response_of(outcome: Reply, url: str) -> httpx.Response:
    """A successful answer. Raises `ApiError`, `InvalidCall`, `Unreachable`."""
    if isinstance(outcome, _OUR_FAULT):
        # Its text quotes the invalid value, which may be a secret.
        raise InvalidCall(reason="HTTP does not allow such a request")
    if isinstance(outcome, httpx.TransportError):
        raise Unreachable(url=url, reason=str(outcome) or type(outcome).__name__) from outcome
    if outcome.is_success:
        return outcome
    raise ApiError(outcome.status_code, _problem(outcome), retry_after_s=retry_after_s(outcome))


def value_of(outcome: Reply, url: str) -> Any:
    """The body of a successful answer, or None. Raises `ApiError`, `InvalidCall`, `Unreachable`."""
    response = response_of(outcome, url)
    try:
        return response.json() if response.content else None
    except ValueError as error:
        raise Unreachable(url=url, reason=SOMETHING_ELSE) from error


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def retry_after_s(response: httpx.Response) -> float | None:
    """The seconds of the header Retry-After, which may be a number or a date."""
    value = response.headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


class Attempts:
    """Decides whether and when one call is retried."""

    def __init__(self, call: Call[Any], retry_for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Tries for `retry_for_s` seconds; 0 is one attempt."""
        self._call = call
        self._clock = clock
        self._deadline = clock() + retry_for_s
        self._pause_s = _FIRST_PAUSE_S

    def pause_after(self, outcome: Reply) -> float | None:
        """Seconds to wait before the next attempt; None if `outcome` is final."""
        if not self._worth_repeating(outcome):
            return None
        asked = retry_after_s(outcome) if isinstance(outcome, httpx.Response) else None
        # With jitter, so that clients that were refused together do not retry together. Never before `Retry-After`.
        pause_s = (self._pause_s if asked is None else asked) * RANDOM.uniform(1.0, 1.25)
        self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2)
        return pause_s if self._clock() + pause_s <= self._deadline else None

    def _worth_repeating(self, outcome: Reply) -> bool:
        if isinstance(outcome, (httpx.ConnectError, httpx.ConnectTimeout)):
            return True
        if isinstance(outcome, httpx.TransportError):
            return self._call.repeatable and not isinstance(outcome, _OUR_FAULT)
        if outcome.status_code in (*_NOT_TAKEN, *_UNKNOWN):
            return self._call.repeatable or _outcome(outcome.status_code, _problem(outcome)) == "not_done"
        # The first attempt with this key is still being handled; a retry gets its answer.
        return outcome.status_code == 409 and _problem(outcome).get("code") == "idempotency_key_in_flight"

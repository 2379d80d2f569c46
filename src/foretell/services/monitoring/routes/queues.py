"""Dead letters: `GET /queues/{queue}/dead` shows them, `DELETE` discards them, `POST …/redrive` sends them back."""

from typing import Annotated, Any

import msgspec

from foretell.contracts.openapi import json_answer as answer_of
from foretell.contracts.openapi import (
    json_body,
    path_parameter,
    problem_answers,
    problem_content,
    query_parameter,
    reference,
    struct_schemas,
)
from foretell.contracts.reports.activity import DeadLetters, MovedLetters
from foretell.kit.asgi import Body
from foretell.kit.misfits import misfit_of
from foretell.kit.problems import InvalidRequest, MalformedBody
from foretell.kit.routing import Answer, Request, Route, json_answer
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.reports.dead_letters import MOST_MOVED, MOST_SHOWN, DeadLetterOffice, NotConfirmed
from foretell.services.monitoring.routes.filters import WrongParameter, known_only, whole_number

_DEAD = "/queues/{queue}/dead"
_REDRIVE = "/queues/{queue}/redrive"
_DEFAULT_SHOWN = 50


class RedriveOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many of the oldest to return to the queue, at most."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_MOVED)]


_decode_order = msgspec.json.Decoder(RedriveOrder).decode


class QueueRoutes:
    """The routes."""

    def __init__(self, office: DeadLetterOffice) -> None:
        self._office = office

    @property
    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("GET", _DEAD, self.show),
            Route("DELETE", _DEAD, self.discard),
            Route("POST", _REDRIVE, self.redrive),
        ]

    async def show(self, request: Request) -> Answer:
        """The messages in the dead-letter queue."""
        query = known_only(request.query(), ["limit"])
        limit = whole_number(query, "limit", _DEFAULT_SHOWN, least=1, most=MOST_SHOWN)
        return json_answer(await self._office.show(request.parameters["queue"], limit))

    async def redrive(self, request: Request) -> Answer:
        """Return dead letters to their queue."""
        known_only(request.query(), ())
        order = _read_order(await request.body())
        return json_answer(await self._office.redrive(request.parameters["queue"], order.limit))

    async def discard(self, request: Request) -> Answer:
        """Discard all dead letters of a queue."""
        query = known_only(request.query(), ["confirm"])
        if "confirm" not in query:
            raise WrongParameter("confirm", "must say how many dead letters there are, which will all be discarded")
        confirmed = whole_number(query, "confirm", 0, least=0, most=999_999_999)
        return json_answer(await self._office.discard(request.parameters["queue"], confirmed))


def _read_order(body: Body) -> RedriveOrder:
    try:
        return _decode_order(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest([misfit_of(error).problem]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBody from None


def part(surroundings: Surroundings) -> Part:
    """Dead letters, as a part of the service."""
    office = DeadLetterOffice(surroundings.settings, surroundings.instance)
    return Part(routes=QueueRoutes(office).routes, paths=_paths, schemas=_schemas)


def _schemas() -> dict[str, Any]:
    return struct_schemas([DeadLetters, MovedLetters, RedriveOrder])


def _paths() -> dict[str, Any]:
    queue = path_parameter("queue", "ml_tasks, ml_tasks.POOL or ml_results", "ml_tasks")
    limit = query_parameter("limit", f"How many of the oldest: 1 to {MOST_SHOWN}", least=1, most=MOST_SHOWN)
    confirm = {**query_parameter("confirm", "How many dead letters there are", least=0), "required": True}
    show = _operation("show_dead_letters", "Dead letters", DeadLetters, 404, 422, 503)
    discard = _operation("discard_dead_letters", "Discard dead letters", MovedLetters, 404, 422, 503)
    discard["responses"]["409"] = {
        "description": "There are more or fewer than was confirmed.",
        "content": problem_content(
            409, NotConfirmed.code, NotConfirmed(count=4, queue="ml_tasks", confirmed=3).message
        ),
    }
    redrive = _operation("redrive", "Redrive dead letters", MovedLetters, 404, 413, 422, 503)
    body = json_body(reference(RedriveOrder.__name__), {"A hundred": {"limit": 100}})
    return {
        _DEAD: {
            "get": show | {"parameters": [queue, limit]},
            "delete": discard | {"parameters": [queue, confirm]},
        },
        _REDRIVE: {"post": redrive | {"parameters": [queue], "requestBody": body}},
    }


def _operation(name: str, summary: str, shape: type, *wrong: int) -> dict[str, Any]:
    return {
        "tags": ["queues"],
        "operationId": name,
        "summary": summary,
        "responses": {"200": answer_of("The answer", reference(shape.__name__)), **problem_answers(*wrong)},
    }

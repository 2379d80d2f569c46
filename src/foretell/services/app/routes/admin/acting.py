"""Who acts, and what each route of operators answers besides."""

from typing import Annotated, Any

import msgspec
from fastapi import Depends, Request

from foretell.domain.operators.journal import Actor
from foretell.services.app.dependencies import Token
from foretell.services.app.openapi import problem_answers, struct_answer
from foretell.services.app.operator_only import ACTOR


async def _actor(request: Request, _token: Token) -> Actor:
    # Proven before the route was found; the token is here for the OpenAPI page.
    actor: Actor = request.scope[ACTOR]
    return actor


#: The operator who asks.
Operator = Annotated[Actor, Depends(_actor)]


#: Of what the app passes on.
AS_IT_COMES = "As the monitoring service answers it (docs/monitoring.md)"


def reported(struct: type[msgspec.Struct]) -> dict[int | str, dict[str, Any]]:
    """An answer of the monitoring service that is passed on: a struct of `contracts.reports`."""
    return {200: struct_answer(struct, AS_IT_COMES)}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems of a route of operators: 401, 404 to whoever is none, and these."""
    return problem_answers(*sorted({401, 404, *statuses}))

"""The acting operator, and the responses that all operators' routes share."""

from typing import Annotated, Any

import msgspec
from fastapi import Depends, Request

from foretell.domain.operators.journal import Actor
from foretell.services.app.dependencies import Token
from foretell.services.app.openapi import problem_answers, struct_answer
from foretell.services.app.operator_only import ACTOR


async def _actor(request: Request, _token: Token) -> Actor:
    # `OperatorOnly` has checked the operator; the token is a parameter only for the OpenAPI page.
    actor: Actor = request.scope[ACTOR]
    return actor


#: The operator who sent the request.
Operator = Annotated[Actor, Depends(_actor)]


#: The description of answers that the app passes on.
AS_IT_COMES = "As the monitoring service answers it (docs/monitoring.md)"


def reported(struct: type[msgspec.Struct]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI response of an answer that the app passes on: a struct of `contracts.reports`."""
    return {200: struct_answer(struct, AS_IT_COMES)}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems of an operators' route: 401, 404 for other accounts, and these."""
    return problem_answers(*sorted({401, 404, *statuses}))

"""Access checks for a reverse proxy that protects other services (`auth_request`; docs/proxy.md)."""

from fastapi import APIRouter, Response

from foretell.domain.errors import Forbidden
from foretell.services.app.dependencies import Caller
from foretell.services.app.openapi import problem_answers

router = APIRouter(tags=["accounts"])

#: A proxy uses the method of the original request, on which the CSRF check of a session depends.
_OTHERS = ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_NOT_STORED = {"Cache-Control": "no-store"}


def _may_come_in() -> Response:
    return Response(status_code=204, headers=_NOT_STORED)


@router.api_route("/auth/user", methods=_OTHERS, include_in_schema=False)
@router.get("/auth/user", status_code=204, summary="Check that somebody is signed in", responses=problem_answers(401))
async def admit_user(caller: Caller) -> Response:
    """204 if the credentials of the request belong to an account."""
    return _may_come_in()


@router.api_route("/auth/operator", methods=_OTHERS, include_in_schema=False)
@router.get("/auth/operator", status_code=204, summary="Check the role operator", responses=problem_answers(401, 403))
async def admit_operator(caller: Caller) -> Response:
    """204 for operators, 403 for all other accounts."""
    if caller.role != "operator":
        raise Forbidden("This is for operators.")
    return _may_come_in()

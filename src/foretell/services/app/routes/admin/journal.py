"""The journal."""

from typing import Annotated

from fastapi import APIRouter, Query

from foretell.contracts import http
from foretell.domain.operators import journal
from foretell.kit.problems import InvalidRequest
from foretell.services.app.dependencies import Limit, PlainNumber, State
from foretell.services.app.routes.admin.acting import Operator, answers

router = APIRouter(prefix="/admin", tags=["operators"])

_LARGEST_ID = 2**63 - 1


@router.get("/journal", summary="The journal of operators", responses=answers(422))
async def read_journal(
    operator: Operator,
    state: State,
    subject: Annotated[str | None, Query(max_length=200, description="Only on this: `user:ID`, `model:NAME`")] = None,
    limit: Limit = 50,
    cursor: Annotated[
        int | None, Query(ge=0, le=_LARGEST_ID, description="`next_cursor` of the page before"), PlainNumber
    ] = None,
) -> http.JournalPage:
    """Changes made on the page and the command line, newest first. Entries can't be changed or removed."""
    if subject is not None and "\0" in subject:
        raise InvalidRequest([{"detail": "must not contain the character NUL", "parameter": "subject"}])
    async with state.database.snapshot() as connection:
        found = await journal.page(connection, limit=limit + 1, before_id=cursor, subject=subject)
    shown = found[:limit]
    return http.JournalPage(
        items=[http.JournalEntry.model_validate(entry) for entry in shown],
        next_cursor=str(shown[-1].id) if len(found) > limit else None,
    )

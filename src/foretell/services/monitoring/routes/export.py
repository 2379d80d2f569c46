"""`GET /reports/logs.jsonl`: streams all matching records as JSON Lines, oldest first, in bounded memory."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import msgspec

from foretell.contracts.monitoring import NDJSON
from foretell.kit.asgi import Application, Receive, Scope, Send
from foretell.kit.clock import now
from foretell.kit.errors import ForetellError
from foretell.kit.problems import MethodNotAllowed
from foretell.kit.routing import AsgiRequest, Request, problem_answer, send_answer
from foretell.services.monitoring.routes import logs
from foretell.services.monitoring.routes.filters import log_query
from foretell.services.monitoring.storage.database import MonitoringDatabase
from foretell.services.monitoring.storage.logs import LogQuery, LogRecord, find

PATH = "/reports/logs.jsonl"

_PIECE = 1_000
#: The deadline of one piece, longer than that of a search, since a stream needs no quick answer.
_DEADLINE_S = 1.0
_HEADERS = [
    (b"content-type", NDJSON.encode()),
    (b"content-disposition", b'attachment; filename="logs.jsonl"'),
    # Proxies must not buffer the stream.
    (b"x-accel-buffering", b"no"),
]

_encode_lines = msgspec.json.Encoder().encode_lines


class Export:
    """Answers the export, and `GET /reports/logs` for JSON Lines; passes all other requests to `app`."""

    def __init__(self, app: Application, database: MonitoringDatabase) -> None:
        self._app = app
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] not in ("GET", "HEAD"):
            error = MethodNotAllowed(method=scope["method"], allowed="GET, HEAD")
            await send_answer(send, problem_answer(error, PATH))
            return
        wanted = scope["type"] == "http" and scope["path"] in (PATH, logs.PATH) and scope["method"] in ("GET", "HEAD")
        request = AsgiRequest(scope, receive, 0) if wanted else None
        if request is None or (scope["path"] == logs.PATH and not logs.is_lines(request.header(b"accept"))):
            await self._app(scope, receive, send)
            return
        try:
            pieces = self._pieces(*_asked(request))
            first = await anext(pieces)
        except ForetellError as error:
            await send_answer(send, problem_answer(error, scope["path"]))
            return
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        if scope["method"] == "GET":
            gone = asyncio.create_task(_disconnected(receive))
            try:
                await _send_lines(send, first)
                async with aclosing(pieces):
                    while not gone.done() and (piece := await anext(pieces, None)) is not None:
                        await _send_lines(send, piece)
            finally:
                gone.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _pieces(self, query: LogQuery, left: int | None) -> AsyncGenerator[list[LogRecord], None]:
        """The records, each piece from its own snapshot, since a long transaction would block vacuum."""
        while True:
            limit = _PIECE if left is None else min(left, _PIECE)
            async with self._database.snapshot() as connection:
                page = await find(connection, replace(query, limit=limit))
            yield page.records
            if left is not None:
                left -= len(page.records)
            if page.more is None or left == 0:
                return
            query = replace(query, after=page.more)


def _asked(request: Request) -> tuple[LogQuery, int | None]:
    """The log query, and the largest number of records. Raises `WrongParameter`."""
    parameters = request.query()
    query = log_query(parameters)
    until = now() if query.until is None else min(query.until, now())
    limit = query.limit if parameters.get("limit") else None
    return replace(query, oldest=True, until=until, deadline_s=_DEADLINE_S), limit


async def _send_lines(send: Send, records: list[LogRecord]) -> None:
    if records:
        body = _encode_lines([logs.shown(record) for record in records])
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

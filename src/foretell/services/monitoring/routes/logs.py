"""`POST /logs`, `GET /reports/logs`, and the export of logs as JSON Lines."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from foretell.contracts.monitoring import NDJSON
from foretell.contracts.reports.activity import ShownRecord
from foretell.kit.routing import Answer, Header, Request, Route, json_answer
from foretell.services.monitoring.intake.intake import Intake
from foretell.services.monitoring.intake.logs import read_lines, read_records
from foretell.services.monitoring.routes.filters import cursor_text, log_query
from foretell.services.monitoring.storage.database import MonitoringDatabase
from foretell.services.monitoring.storage.logs import LEVEL_NAMES, LogPage, LogRecord, find

PATH = "/reports/logs"
_LINES = frozenset({NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"})


def shown(record: LogRecord) -> ShownRecord:
    """`record` in the format of `POST /logs`."""
    fields = record.fields
    return ShownRecord(
        record.service,
        LEVEL_NAMES[record.level],
        record.message,
        record.at,
        record.instance,
        record.trace_id,
        fields.pop("prediction_id", None),
        fields.pop("request_id", None),
        fields,
    )


class Logs:
    """The routes."""

    def __init__(self, database: MonitoringDatabase, intake: Intake) -> None:
        self._database = database
        self._intake = intake

    @property
    def routes(self) -> list[Route]:
        return [Route("POST", "/logs", self.take), Route("GET", PATH, self.report)]

    async def take(self, request: Request) -> Answer:
        """Store one record, a list of them, or JSON Lines."""
        if is_lines(request.header(b"content-type")):
            reading = await self._intake.take(request, read_lines)
            answer: dict[str, Any] = {"status": "logged", "stored": len(reading.logs), "refused": reading.refused}
            return json_answer(answer | ({"errors": reading.errors} if reading.errors else {}))
        await self._intake.take(request, read_records)
        return json_answer({"status": "logged"})

    async def report(self, request: Request) -> Answer:
        """The newest matching records, newest last."""
        parameters = request.query()
        query = log_query(parameters)
        async with self._database.snapshot() as connection:
            page = await find(connection, query)
        return json_answer([shown(record) for record in page.records], headers=_link(PATH, parameters, page))


def is_lines(content_type: bytes | None) -> bool:
    """Whether a Content-Type, or one of the types in an Accept, is JSON Lines."""
    types = (content_type or b"").decode("latin-1").lower().split(",")
    return any(each.partition(";")[0].strip() in _LINES for each in types)


def _link(path: str, parameters: Mapping[str, str], page: LogPage) -> list[Header]:
    """The `Link` header to the next page of this search."""
    if page.more is None:
        return []
    place = {"after" if page.oldest else "before": cursor_text(page.more)}
    query = urlencode({name: value for name, value in parameters.items() if name not in ("before", "after")} | place)
    return [(b"link", f'<{path}?{query}>; rel="next"'.encode())]

"""Errors: HTTP answers, failed predictions, and log lines."""

from collections import defaultdict
from datetime import datetime
from typing import TypedDict

from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.activity import (
    AnswerCounts,
    Errors,
    FailureCount,
    Failures,
    LoggedLines,
    ModelFailures,
    RouteAnswers,
)
from foretell.services.monitoring.reports.counting import Counts, count
from foretell.services.monitoring.reports.period import Period
from foretell.services.monitoring.reports.throughput import REQUESTS, SETTLED
from foretell.services.monitoring.storage import logs

_FAILED = "failed"
MODEL_FAILURES = "foretell_model_failures_total"


class _AnswersFields(TypedDict):
    count: int
    count_4xx: int
    count_5xx: int
    share_4xx: float | None
    share_5xx: float | None


async def errors(connection: AsyncConnection, period: Period) -> Errors:
    """All errors of the period."""
    counts = await count(connection, period)
    answers = _answers(counts, "service", "route")
    return Errors(
        **period.fields,
        requests=requests(counts),
        routes=[
            RouteAnswers(**_fields(numbers), service=service, route=route)
            for (service, route), numbers in sorted(answers.items())
            if sum(numbers)
        ],
        predictions=failures(counts),
        models=model_failures(counts),
        logs=await logged(connection, period),
    )


def requests(counts: Counts, service: str | None = None) -> AnswerCounts:
    """The answers to all requests, or to those to one service."""
    found = _answers(counts) if service is None else _answers(counts, "service")
    return AnswerCounts(**_fields(found.get(() if service is None else (service,), [0.0, 0.0, 0.0])))


def _answers(counts: Counts, *by: str) -> dict[tuple[str, ...], list[float]]:
    """The number of answers, of 4xx and of 5xx, by these labels."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for (*labels, status), grown in counts.increases(REQUESTS, *by, "status").items():
        numbers = found[tuple(labels)]
        numbers[0] += grown
        if status[:1] in ("4", "5"):
            numbers[int(status[0]) - 3] += grown
    return found


def _fields(numbers: list[float]) -> _AnswersFields:
    every, refused, failed = numbers
    return {
        "count": round(every),
        "count_4xx": round(refused),
        "count_5xx": round(failed),
        "share_4xx": refused / every if every else None,
        "share_5xx": failed / every if every else None,
    }


def failures(counts: Counts) -> Failures:
    """Predictions that failed, by their code."""
    ended = counts.increases(SETTLED, "status", "code")
    codes: dict[str, float] = defaultdict(float)
    for (status, code), grown in ended.items():
        if status == _FAILED and grown:
            codes[code] += grown
    every, failed = sum(ended.values()), sum(codes.values())
    return Failures(
        ended=round(every),
        failed=round(failed),
        share=failed / every if every else None,
        codes=[FailureCount(code, round(grown)) for code, grown in sorted(codes.items())],
    )


def model_failures(counts: Counts) -> list[ModelFailures]:
    """Failures of models, the most frequent first."""
    found = counts.increases(MODEL_FAILURES, "model", "version", "reason")
    failed = [ModelFailures(model, version, reason, round(grown)) for (model, version, reason), grown in found.items()]
    return sorted((each for each in failed if each.count), key=lambda each: (-each.count, each.model, each.version))


async def logged(connection: AsyncConnection, period: Period) -> list[LoggedLines]:
    """Warnings and errors in the logs, by service."""
    since = _minute_of(period.since)
    minutes = (period.until - since).total_seconds() / 60
    found = await logs.counts(connection, since, period.until)
    lines = []
    for service, levels in sorted(found.items()):
        warnings = levels.get(logs.WARNING, 0)
        wrong = sum(records for level, records in levels.items() if level >= logs.ERROR)
        lines.append(LoggedLines(service, warnings, wrong, warnings / minutes, wrong / minutes))
    return lines


def _minute_of(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)

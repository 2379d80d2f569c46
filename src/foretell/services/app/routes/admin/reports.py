"""Reports, alerts and logs of the monitoring service, for operators."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.responses import StreamingResponse

from foretell.contracts import http
from foretell.contracts.openapi import json_answer, query_parameter, reference
from foretell.contracts.reports import activity, alert_rules, condition, drift
from foretell.domain.accounts import registration
from foretell.domain.accounts.identity import Identity
from foretell.domain.errors import InvalidToken
from foretell.domain.operators import journal
from foretell.kit.clock import now
from foretell.kit.errors import ForetellError, Unavailable
from foretell.kit.problems import InvalidRequest
from foretell.services.app.dependencies import Caller, State, Token
from foretell.services.app.monitoring import part
from foretell.services.app.openapi import struct_answer
from foretell.services.app.routes.admin.acting import AS_IT_COMES, Operator, answers, reported
from foretell.services.app.state import AppState

router = APIRouter(prefix="/admin", tags=["operators"])

_PERIOD = ("since", "until", "window")
#: By name: the answer of each report, its summary, and its parameters.
_REPORTS: Mapping[str, tuple[type[msgspec.Struct], str, tuple[str, ...]]] = {
    "overview": (condition.Overview, "Key figures", _PERIOD),
    "health": (condition.Health, "Health of services and instances", ()),
    "throughput": (activity.Throughput, "Throughput over time", (*_PERIOD, "points")),
    "latency": (activity.Latency, "Latency of requests, model runs and predictions", (*_PERIOD, "points")),
    "errors": (activity.Errors, "Errors of requests, predictions and logs", _PERIOD),
    "workers": (activity.Workers, "Workers and their tasks", _PERIOD),
    "queues": (activity.Queues, "Queue depths and dead letters", _PERIOD),
    "shadows": (activity.Shadows, "Agreement of shadow versions", _PERIOD),
    "revenue": (activity.Revenue, "Revenue by model and day", ("days",)),
    "drift": (
        drift.DriftReport,
        "Drift from the training reference",
        ("model", "version", "window"),
    ),
}
_ABOUT = {
    "since": "The beginning, ISO 8601, without a zone UTC",
    "until": "The end; now, if it is left out",
    "window": "Its length in place of one of them: 90s, 5m, 2h, 7d; of drift, the length of one window in seconds",
    "points": "In how many points over time, at most",
    "days": "How many days, today among them",
    "model": "Only this model",
    "version": "Only this version",
    "service": "Of this service",
    "limit": "How many, at most",
    "instance": "Of this instance",
    "level": "Exactly this level",
    "min_level": "DEBUG, INFO, WARNING or ERROR: this level or worse",
    "text": "With this in the message",
    "prediction_id": "About this prediction",
    "trace_id": "Of this trace",
    "before": "Older than this place; from the Link header of an earlier answer",
    "after": "Newer than this place; from the Link header of an earlier answer",
}
#: The smallest values of integer parameters.
_LEAST = {"points": 0, "days": 1, "limit": 0}
_LOG_PARAMETERS = (
    *("service", "instance", "level", "min_level", "since", "until", "text", "prediction_id", "trace_id"),
    *("before", "after", "limit"),
)
_STREAM = "text/event-stream"
_COMMENT_EVERY_S = 15.0
_VALUES = {
    "type": "object",
    "description": "Values by service",
    "additionalProperties": {"type": "array", "items": reference("MetricValue")},
}
_RECORD = reference("ShownRecord")
_encode = msgspec.json.Encoder().encode


@router.get(
    "/overview",
    summary="Overview of the installation",
    response_model=None,
    responses=reported(condition.Glance) | answers(),
)
async def show_overview(operator: Operator, state: State) -> Response:
    """Services, queues, workers, errors, open alerts, revenue of today. A part that is unavailable is null."""
    asked = {
        "overview": state.monitoring.read("/reports/overview"),
        "health": state.monitoring.read("/reports/health"),
        "queues": state.monitoring.read("/reports/queues"),
        "workers": state.monitoring.read("/reports/workers"),
        "revenue": state.monitoring.read("/reports/revenue", {"days": 1}),
        "alerts": state.monitoring.read("/alerts", {"limit": 0}),
    }
    found = await asyncio.gather(*asked.values(), return_exceptions=True)
    glance: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, answer in zip(asked, found, strict=True):
        if isinstance(answer, ForetellError):
            glance[name], problems[name] = None, answer.message
        elif isinstance(answer, BaseException):
            raise answer
        else:
            glance[name] = answer
    return _json(_encode({"at": now(), **glance, "problems": problems}))


def _add_report(path: str, report: str, answer: dict[str, Any], summary: str, parameters: tuple[str, ...]) -> None:
    """Add a route that answers with this report of the monitoring service."""

    async def show(operator: Operator, request: Request, state: State) -> Response:
        return _json(await state.monitoring.ask(f"/reports/{report}", _given(request, parameters)))

    router.add_api_route(
        path,
        show,
        methods=["GET"],
        name="show" + path.replace("/", "_"),
        summary=summary,
        description="As `GET /reports/...` of the monitoring service (docs/monitoring.md).",
        response_model=None,
        responses={200: answer, **answers(422)},
        openapi_extra=_described(parameters),
    )


def _described(parameters: tuple[str, ...]) -> dict[str, Any]:
    described = [query_parameter(name, _ABOUT[name], least=_LEAST.get(name)) for name in parameters]
    return {"parameters": described}


for _name, (_shape, _summary, _parameters) in _REPORTS.items():
    _add_report(f"/reports/{_name}", _name, struct_answer(_shape, AS_IT_COMES), _summary, _parameters)
_add_report("/reports/metrics", "metrics", json_answer(AS_IT_COMES, _VALUES), "Values of metrics", ("service", "limit"))
_add_report("/workers", "workers", struct_answer(activity.Workers, AS_IT_COMES), "Workers and their tasks", _PERIOD)


@router.get(
    "/alerts",
    summary="Open and recent alerts",
    response_model=None,
    responses=reported(condition.AlertList) | answers(422),
    openapi_extra=_described(("limit",)),
)
async def show_alerts(operator: Operator, request: Request, state: State) -> Response:
    """Open alerts, and the `limit` alerts resolved most recently."""
    return _json(await state.monitoring.ask("/alerts", _given(request, ("limit",))))


@router.get(
    "/alerts/rules",
    summary="Alert rules",
    response_model=None,
    responses=reported(alert_rules.RuleList) | answers(),
)
async def show_alert_rules(operator: Operator, state: State) -> Response:
    """The rules in force, and the errors in the operator's own rules."""
    return _json(await state.monitoring.ask("/alerts/rules"))


@router.post(
    "/alerts/{alert_id}/silence",
    summary="Silence an alert",
    response_model=None,
    responses=reported(condition.Silenced) | answers(403, 413, 422),
)
async def silence_alert(alert_id: str, wanted: http.NewSilence, operator: Operator, state: State) -> Response:
    """Stop notifications of this rule for its subject; it is still evaluated and shown. 0 minutes end the silence."""
    async with state.database.transaction() as connection:
        await journal.prove(connection, operator)
    told = await state.monitoring.tell("POST", f"/alerts/{part(alert_id)}/silence", {"minutes": wanted.minutes})
    async with state.database.transaction() as connection:
        after = {"minutes": wanted.minutes, "until": told.get("until"), "subject": told.get("subject")}
        await journal.write_outcome(connection, operator, "alert.silence", f"alert:{told.get('rule')}", after=after)
    return _json(_encode(told))


@router.get(
    "/logs",
    summary="Logs of all services",
    response_model=None,
    responses={
        200: {
            "description": "Records, newest last; or as they come, as server-sent events `log`",
            "content": {
                "application/json": {"schema": {"type": "array", "items": _RECORD}},
                _STREAM: {"schema": {"type": "string"}},
            },
        },
        **answers(422),
    },
    openapi_extra=_described(_LOG_PARAMETERS),
)
async def search_logs(
    operator: Operator,
    caller: Caller,
    token: Token,
    request: Request,
    state: State,
    follow: Annotated[bool, Query(description="Go on with what comes, as a stream")] = False,
    accept: Annotated[str, Header(description="`text/event-stream` for a stream", max_length=1000)] = "",
) -> Response:
    """By `service`, `instance`, `level`, `min_level`, `since`, `until`, `text`, `prediction_id`, `trace_id`, `limit`.

    The header `Link` leads to the lines before (docs/monitoring.md).
    """
    given = _given(request, _LOG_PARAMETERS, also=("follow",))
    if not follow and _STREAM not in accept:
        lines, link = await state.monitoring.search_logs(given)
        return Response(lines, media_type="application/json", headers={"Link": link} if link else {})
    # Refuse wrong parameters before a stream begins.
    await state.monitoring.ask("/reports/logs", {**given, "limit": 1})
    steady = {name: value for name, value in given.items() if name not in ("since", "until", "before", "after")}

    return StreamingResponse(
        _lines(state, steady, partial(_still_in, state, caller, token)),
        media_type=_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _still_in(state: AppState, caller: Identity, token: str) -> bool:
    """Whether the caller may still see the lines; true while the database is unavailable."""
    try:
        await state.authenticator.check_still(caller, token)
        async with state.database.snapshot() as connection:
            user = await registration.find_user_by_id(connection, caller.user_id)
    except InvalidToken:
        return False
    except Unavailable:
        return True
    return user.role == "operator" and user.active


async def _lines(
    state: AppState, parameters: dict[str, str], still_in: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    looks, quiet = 0, True
    async for lines in state.monitoring.follow_logs(parameters):
        if state.stopping.is_set():
            return
        looks, quiet = looks + 1, quiet and not lines
        # Also while lines keep coming.
        if looks >= _COMMENT_EVERY_S:
            if not await still_in():
                return
            if quiet:
                yield b": nothing new\n\n"
            looks, quiet = 0, True
        for line in lines:
            yield b"event: log\ndata: %b\n\n" % _encode(line)


def _given(request: Request, known: tuple[str, ...], also: tuple[str, ...] = ()) -> dict[str, str]:
    """The query parameters that are passed on. Raises `InvalidRequest` for an unknown one."""
    given = {}
    for name, value in request.query_params.items():
        if name in also:
            continue
        if name not in known:
            detail = f"is not known here; known are {', '.join(sorted(known + also))}"
            raise InvalidRequest([{"detail": detail, "parameter": name}])
        if value:
            given[name] = value
    return given


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")

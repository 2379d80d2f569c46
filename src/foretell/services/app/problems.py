"""Turns the framework's errors and ours into problem responses (`kit/problems.py`)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from foretell.domain.errors import Forbidden, InvalidToken
from foretell.kit.errors import ForetellError
from foretell.kit.head import ASKED_METHOD
from foretell.kit.problems import (
    InternalError,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NothingHere,
    pointer,
    problem_bytes,
)
from foretell.kit.unpacking import ACCEPTED, UnknownEncoding

log = structlog.get_logger()

#: The safe methods of RFC 9110, which change nothing.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class NotAcceptable(ForetellError):
    """The request was refused: {reason}."""

    code = "bad_request"
    status = 400


def problem_response(error: ForetellError, request: Request, headers: Mapping[str, str] | None = None) -> Response:
    """The error as a problem response, with additional `headers`."""
    reads_only = request.method in _SAFE_METHODS
    status, own_headers, content = problem_bytes(error, request.url.path, reads_only=reads_only)
    if isinstance(error, UnknownEncoding):
        own_headers.append((b"accept-encoding", ACCEPTED))
    response = Response(content, status)
    response.raw_headers = [*own_headers, *(_encode(name, value) for name, value in (headers or {}).items())]
    return response


def install(api: FastAPI, methods: Mapping[str, Sequence[str]]) -> None:
    """Let `api` answer every error as a problem. `methods` are those of each of its paths."""
    api.state.methods = methods
    api.add_exception_handler(ForetellError, _explained)
    api.add_exception_handler(RequestValidationError, _not_valid)
    api.add_exception_handler(HTTPException, _from_framework)
    # Starlette raises the error again after this response, so that the outer middleware can log it.
    api.add_exception_handler(Exception, _unforeseen)


async def _explained(request: Request, error: Exception) -> Response:
    assert isinstance(error, ForetellError)
    if error.status == 500:
        log.error("request_failed", exc_info=error)
    return problem_response(error, request)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(_explain(error.errors(), error.body, _required(request)), request)


async def _unforeseen(request: Request, error: Exception) -> Response:
    return problem_response(InternalError(), request)


async def _from_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    explained: ForetellError
    headers = error.headers
    cause = error.__cause__
    if isinstance(cause, ForetellError):
        # FastAPI wraps errors raised while it reads a body; use our own error.
        explained = cause
    elif error.status_code in (404, 405) and (methods := _methods(request)):
        # The framework names the methods of one route only; other routes may have the same path.
        explained, headers = (
            MethodNotAllowed(method=_asked_method(request)),
            {"Allow": ", ".join(methods)},
        )
    elif error.status_code == 404:
        explained = NothingHere()
    elif error.status_code == 405:
        explained = MethodNotAllowed(method=_asked_method(request))
    elif error.status_code == 401:
        explained = InvalidToken()
    elif error.status_code == 403:
        explained = Forbidden()
    elif isinstance(cause, ValueError | RecursionError) or error.status_code == 400:
        explained = MalformedBody()
    elif error.status_code >= 500:
        explained = InternalError()
    else:
        explained = NotAcceptable(reason=HTTPStatus(error.status_code).phrase)
    return problem_response(explained, request, headers)


def _asked_method(request: Request) -> str:
    return str(request.scope.get(ASKED_METHOD, request.method))


def _methods(request: Request) -> list[str]:
    """Every method of the path; none for an unknown path, and for one that is not in the OpenAPI document."""
    template = getattr(request.scope.get("route"), "path_format", request.url.path)
    # Not from the document: to make it takes so long that requests of others would wait for the first unknown path.
    methods = request.app.state.methods.get(template, ())
    return [*methods, "HEAD"] if "GET" in methods else [*methods]


def _required(request: Request) -> list[str]:
    """The required fields of the route's body."""
    field = getattr(request.scope.get("route"), "body_field", None)
    kind = getattr(getattr(field, "field_info", None), "annotation", None)
    fields = getattr(kind, "model_fields", {})
    return [each.alias or name for name, each in fields.items() if each.is_required()]


def _explain(errors: Sequence[Mapping[str, Any]], body: Any, required: Sequence[str]) -> ForetellError:
    """FastAPI's validation errors without the values, which may be passwords.

    Without a body, every `required` field is reported as missing.
    """
    if any(error["type"] == "json_invalid" for error in errors):
        return MalformedBody()
    # "May be null" does not help a client that sent another value.
    helpful = [error for error in errors if error["type"] != "none_required"] or errors
    return InvalidRequest(
        [_field_problem(each, body) for error in helpful for each in _by_field(error, required)],
    )


def _by_field(error: Mapping[str, Any], required: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    if error["type"] == "missing" and tuple(error["loc"]) == ("body",) and required:
        return [{**error, "loc": ("body", name)} for name in required]
    return [error]


def _field_problem(error: Mapping[str, Any], body: Any) -> dict[str, str]:
    where, *path = error["loc"]
    detail = str(error["msg"]).removeprefix("Value error, ")
    if where == "body":
        return {"detail": detail, "pointer": pointer(*(path if error["type"] == "missing" else _within(body, path)))}
    if where == "header":
        return {"detail": detail, "header": ".".join(str(step) for step in path)}
    return {"detail": detail, "parameter": ".".join(str(step) for step in path)}


def _within(body: Any, path: Sequence[str | int]) -> Sequence[str | int]:
    """The part of the path that exists in the body: Pydantic appends the types it tried for a union."""
    for depth, step in enumerate(path):
        try:
            body = body[step]
        except (LookupError, TypeError):
            return path[:depth]
    return path


def _encode(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")

"""Every error as `application/problem+json` (RFC 9457), for services without a framework.

`code` is for programs, `detail` for people. The answer for an unexpected error contains nothing about its cause.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any
from urllib.parse import quote

import msgspec

from foretell.kit.errors import ForetellError

CONTENT_TYPE = b"application/problem+json"
#: A hostile body could have very many wrong fields.
MAX_ERRORS = 50

_TYPE = "urn:problem-type:foretell:"
_RESERVED = frozenset({"type", "title", "status", "detail", "code", "instance", "outcome"})
_encode = msgspec.json.Encoder(enc_hook=str).encode


class InternalError(ForetellError):
    """Something went wrong on our side. It was logged under the X-Request-ID of this answer."""


class Failed(ForetellError):
    """Something failed on our side, and whoever asked may read how."""

    code = "failed"
    status = 500


class InvalidRequest(ForetellError):
    """The request does not fit. See `errors` for each field.

    `errors` are mappings with `detail` and one of `pointer` (JSON Pointer, as a URI fragment, into the body),
    `parameter` or `header`.
    """

    code = "invalid_request"
    status = 422

    def __init__(self, errors: Sequence[Mapping[str, str]], message: str | None = None) -> None:
        super().__init__(message, errors=list(errors)[:MAX_ERRORS])


class MalformedBody(ForetellError):
    """The body can't be read: it must be valid JSON (or a valid form), in UTF-8 and not nested too deep."""

    code = "malformed_body"
    status = 422


class NothingHere(ForetellError):
    """There is nothing at this address."""

    code = "not_found"
    status = 404


class MethodNotAllowed(ForetellError):
    """This address does not take {method} requests."""

    code = "method_not_allowed"
    status = 405


def pointer(*path: str | int) -> str:
    """A JSON Pointer (RFC 6901) as a URI fragment: `#/input/carrier`."""
    return "#" + "".join("/" + quote(str(step).replace("~", "~0").replace("/", "~1"), safe="~") for step in path)


def problem_bytes(
    error: ForetellError, instance: str | None = None, *, reads_only: bool = False
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers (content type and length among them) and body of the answer that explains `error`.

    `instance` is the path of the request; a request that `reads_only` has no effect. With a status of 5xx,
    `outcome` says whether the request may have taken effect. The caller logs an error with status 500, and the answer
    contains nothing about it, unless it is a `Failed`.
    """
    if error.status == 500 and not isinstance(error, Failed):
        error = InternalError()
    body: dict[str, Any] = {
        "type": _TYPE + error.code,
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
    }
    if error.status >= 500:
        body["outcome"] = "not_done" if reads_only else error.outcome
    if instance is not None:
        body["instance"] = quote(instance)
    body.update((name, value) for name, value in error.details.items() if name not in _RESERVED)
    content = _encode(body)
    headers = [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(content))]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after_s))))
    if error.status == 401:
        challenge = ", ".join(['Bearer realm="foretell"', *([error.challenge] if error.challenge else [])])
        headers.append((b"www-authenticate", challenge.encode()))
    return error.status, headers, content

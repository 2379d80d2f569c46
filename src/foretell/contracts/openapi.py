"""Helpers for OpenAPI 3.1 documents of services without a framework."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

_REF = "#/components/schemas/{}"


#: By status: a description, and the code and detail of an example.
_PROBLEMS = {
    400: ("The request was refused.", "bad_request", "Where there is one body, it must have one length."),
    401: ("Whoever asks must show a token.", "token_needed", "Show the token: Authorization: Bearer TOKEN."),
    404: ("There is no such thing.", "not_found", "There is nothing at this address."),
    408: ("The body did not come in time.", "request_too_slow", "The body did not come within 120 s."),
    413: ("The body is too large.", "body_too_large", "The body may have 16777216 bytes."),
    415: ("The body is compressed with something else.", "unknown_encoding", "Taken are gzip and deflate."),
    422: ("The request does not fit; `errors` points to each field.", "invalid_request", "The request does not fit."),
    500: ("The model failed.", "model_error", "The model failed."),
    503: ("A part that is needed for this is away, or busy.", "overloaded", "More work is waiting than can be taken."),
    504: ("The model did not answer in time.", "timeout", "The model did not answer within 30 s."),
}


def document(
    *, title: str, version: str, description: str, paths: dict[str, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    """A document of `paths`, sorted; `schemas` are its components, besides `Problem`."""
    # Imported here, because the imports are slow and a service should start fast.
    from pydantic.json_schema import models_json_schema

    from foretell.contracts.http import Problem

    _, problem = models_json_schema([(Problem, "validation")], ref_template="#/components/schemas/{model}")
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": problem["$defs"] | schemas},
    }


def reference(name: str) -> dict[str, str]:
    """The component of that name."""
    return {"$ref": _REF.format(name)}


def struct_schemas(structs: Iterable[type[msgspec.Struct]]) -> dict[str, Any]:
    """The schemas of msgspec structs, by name, with those they refer to."""
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    return schemas


def embedded(schema: dict[str, Any], urn: str) -> dict[str, Any]:
    """A model's schema as a part of the document; `urn` is unique to it."""
    inner = {name: part for name, part in schema.items() if name != "$schema"}
    # References inside it (`#/$defs/...`) are relative to its own root.
    return {"$id": urn, **inner} if "$defs" in inner and "$id" not in inner else inner


def component_name(*parts: str) -> str:
    """`FlightDelayFeatures` from `flight-delay` and `features`."""
    words = "-".join(parts).replace(".", "-").replace("_", "-").split("-")
    return "".join(word[:1].upper() + word[1:] for word in words)


def json_body(schema: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    """A request's body; `examples` are values by their summary."""
    content: dict[str, Any] = {"schema": schema}
    if examples:
        content["examples"] = {
            component_name(summary.replace(" ", "-")): {"summary": summary, "value": value}
            for summary, value in examples.items()
        }
    return {"required": True, "content": {"application/json": content}}


def json_answer(description: str, schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    """An answer in JSON."""
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}}


def problem_content(status: int, code: str, detail: str) -> dict[str, Any]:
    """The content of an answer that is a problem, with an example of that status."""
    example = {
        "type": f"urn:problem-type:foretell:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return {"application/problem+json": {"schema": reference("Problem"), "example": example}}


def problem_answers(*statuses: int) -> dict[str, Any]:
    """The problem answers of a call."""
    return {
        str(status): {"description": description, "content": problem_content(status, code, detail)}
        for status in statuses
        for description, code, detail in [_PROBLEMS[status]]
    }


def path_parameter(name: str, description: str, example: str) -> dict[str, Any]:
    """A part of the path."""
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema} | {
        "example": example
    }


def query_parameter(
    name: str, description: str, *, least: int | None = None, most: int | None = None
) -> dict[str, Any]:
    """An optional query parameter; with `least` a whole number, up to `most`."""
    schema: dict[str, Any] = {"type": "string"}
    if least is not None:
        schema = {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})
    return {"name": name, "in": "query", "description": description, "schema": schema}

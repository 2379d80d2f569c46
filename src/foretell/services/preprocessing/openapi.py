"""The OpenAPI document of the preprocessing service, from the schemas of the installed models."""

from typing import Any

import foretell
from foretell.contracts.openapi import (
    component_name,
    document,
    embedded,
    json_answer,
    json_body,
    path_parameter,
    problem_answers,
    query_parameter,
    reference,
)
from foretell.inference.package import ModelPackage
from foretell.inference.registry import Registry
from foretell.services.preprocessing.routes.features import FLIGHT_DELAY

_DESCRIPTION = """\
Turns what people know into what models take, one row or many at once. A bad row of a list is named by its place and
field in `errors`. Problems are `application/problem+json` (RFC 9457).
"""
_WRONG = (413, 422, 503, 504)
_NAME = path_parameter("name", "The model's name", FLIGHT_DELAY)
_VERSION = query_parameter("version", "Without one, the default version")
_MODEL = {
    "type": "object",
    "required": ["name", "version", "versions", "ready", "input_schema", "features_schema"],
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "ready": {"type": "boolean"},
        "reason": {"type": "string", "description": "Why it is not ready"},
        "input_schema": {"type": "object"},
        "features_schema": {"type": "object"},
    },
}
_MODELS = {
    "type": "object",
    "required": ["items", "unavailable"],
    "properties": {
        "items": {"type": "array", "items": _MODEL},
        "unavailable": {"type": "array", "items": {"type": "object"}},
    },
}


def openapi(registry: Registry) -> dict[str, Any]:
    """The document for the models of `registry`."""
    anything = {"type": "object"}
    paths: dict[str, Any] = {
        "/models": {"get": _operation("list_models", "Every model", _MODELS, tag="models")},
        "/models/{name}": {
            "get": _operation("show_model", "One model", _MODEL, 404, 422, tag="models")
            | {"parameters": [_NAME, _VERSION]}
        },
        "/models/{name}/preprocess": {
            "post": _preprocess(
                "preprocess", "Preprocess for any model", _or_list(anything), _or_list(anything), None, 400
            )
            | {"parameters": [_NAME, _VERSION]}
        },
    }
    schemas: dict[str, Any] = {}
    for package in (registry.get(name) for name in registry.names):
        schemas.update(_schemas(package))
        raw, features = _refs(package)
        example = next((each.input for each in package.examples if each.input is not None), None)
        paths[f"/models/{package.name}/preprocess"] = {
            "post": _preprocess(
                f"preprocess_{package.name.replace('-', '_')}",
                f"Preprocess for the model {package.name}",
                _or_list(raw),
                _or_list(features),
                example,
                *([400] if package.name == FLIGHT_DELAY else []),
            )
            | {"parameters": [_VERSION]}
        }
        if package.name == FLIGHT_DELAY:
            paths["/preprocess"] = {
                "post": _preprocess("preprocess_flight", "Preprocess a flight", raw, features, example, 400)
            }
            paths["/batch_preprocess"] = {
                "post": _preprocess(
                    "preprocess_flights",
                    "Preprocess a list of flights",
                    _list_of(raw),
                    _list_of(features),
                    example and [example],
                    400,
                )
            }
    return document(
        title="Foretell preprocessing service",
        version=foretell.__version__,
        description=_DESCRIPTION,
        paths=paths,
        schemas=schemas,
    )


def _schemas(package: ModelPackage) -> dict[str, Any]:
    urn = f"urn:foretell:model:{package.name}:{package.version}"
    return {
        component_name(package.name, "input"): embedded(package.input_schema, f"{urn}:input"),
        component_name(package.name, "features"): embedded(package.features_schema, f"{urn}:features"),
    }


def _refs(package: ModelPackage) -> tuple[dict[str, Any], dict[str, Any]]:
    return reference(component_name(package.name, "input")), reference(component_name(package.name, "features"))


def _preprocess(
    operation_id: str, summary: str, raw: dict[str, Any], features: dict[str, Any], example: Any, *wrong: int
) -> dict[str, Any]:
    operation = _operation(operation_id, summary, features, 404, *wrong, *_WRONG, tag="features")
    return operation | {"requestBody": json_body(raw, {"An example": example} if example else None)}


def _operation(operation_id: str, summary: str, answer: dict[str, Any], *wrong: int, tag: str) -> dict[str, Any]:
    return {
        "tags": [tag],
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": json_answer("The answer", answer), **problem_answers(*wrong)},
    }


def _list_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def _or_list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, _list_of(schema)]}

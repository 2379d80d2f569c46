"""The OpenAPI document of the model service, from the schemas of its current models."""

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
    struct_schemas,
)
from foretell.inference.package import Example, ModelPackage
from foretell.inference.registry import Registry
from foretell.services.model.open_inference_operations import STRUCTS, open_inference_paths
from foretell.services.model.routes.predictions import FLIGHT_DELAY

_DESCRIPTION = """\
Answers at once, from the models themselves. `POST /models/{name}/predict` takes features, or raw input, of one row or
of many; `/v2` is the Open Inference Protocol, so that `tritonclient.http` and others work as they come.

Problems are `application/problem+json` (RFC 9457), those of `/v2` `{"error": text}`.
"""
_MOMENT = "2026-01-05T09:30:00.000123Z"
_SERVICE = {
    "timestamp": {"type": "string", "format": "date-time", "description": "When it was predicted, UTC"},
    "service_version": {"type": "string", "description": "The version of this service"},
}
_VERSION = {"model_version": {"type": "string", "description": "The version of the model that answered"}}
_WRONG = (404, 413, 422, 500, 503, 504)


def openapi(registry: Registry) -> dict[str, Any]:
    """The document for the models of `registry`."""
    packages = [registry.get(name) for name in registry.names]
    schemas = struct_schemas(STRUCTS)
    paths: dict[str, Any] = {
        "/models": {"get": _LIST_MODELS},
        "/models/{name}": {"get": _SHOW_MODEL},
        "/models/{name}/predict": {"post": _predict_any()},
        **open_inference_paths(),
    }
    for package in packages:
        schemas.update(_schemas(package))
        paths[f"/models/{package.name}/predict"] = {"post": _predict(package)}
        if package.name == FLIGHT_DELAY:
            paths["/predict"] = {"post": _predict_flight(package)}
    return document(
        title="Foretell model service",
        version=foretell.__version__,
        description=_DESCRIPTION,
        paths=paths,
        schemas=schemas,
    )


def _schemas(package: ModelPackage) -> dict[str, Any]:
    urn = f"urn:foretell:model:{package.name}:{package.version}"
    parts = {"features": package.features_schema, "output": package.output_schema}
    if package.has_preprocessing:
        parts["input"] = package.input_schema
    return {component_name(package.name, part): embedded(schema, f"{urn}:{part}") for part, schema in parts.items()}


def _part(package: ModelPackage, part: str) -> dict[str, str]:
    return reference(component_name(package.name, part if part != "input" or package.has_preprocessing else "features"))


def _predict_flight(package: ModelPackage) -> dict[str, Any]:
    """`POST /predict`."""
    output = package.output_schema
    answer = {
        "type": "object",
        "properties": {**output.get("properties", {}), **_SERVICE},
        "required": [*output.get("required", ()), *_SERVICE],
    }
    example = next((each for each in package.examples if each.features is not None), None)
    return {
        "tags": ["predictions"],
        "operationId": "predict_flight",
        "summary": "Predict whether a flight is late",
        "requestBody": json_body(_part(package, "features"), {"A flight": example.features} if example else None),
        "responses": {
            "200": json_answer("The prediction", answer, _answered(example) if example else None),
            **problem_answers(413, 422, 500, 503, 504),
        },
    }


def _predict(package: ModelPackage) -> dict[str, Any]:
    """`POST /models/{name}/predict` for one model, with its schemas."""
    features, raw, output = (_part(package, part) for part in ("features", "input", "output"))
    return {
        "tags": ["predictions"],
        "operationId": f"predict_{package.name.replace('-', '_')}",
        "summary": f"Predict with the model {package.name}",
        "description": f"{package.description.en}\n\n{_FORMS}",
        "parameters": [query_parameter("version", "Without one, the default version")],
        "requestBody": json_body(
            {"anyOf": [features, _list_of(features), _wrapped("features", features), _wrapped("input", raw)]},
            _request_examples(package),
        ),
        "responses": {
            "200": json_answer("The prediction, or a list of them", _answers(output)),
            **problem_answers(*_WRONG),
        },
    }


def _predict_any() -> dict[str, Any]:
    """`POST /models/{name}/predict` for any model."""
    row = {"type": "object"}
    return {
        "tags": ["predictions"],
        "operationId": "predict",
        "summary": "Predict with any model",
        "description": _FORMS,
        "parameters": [_NAME, query_parameter("version", "Without one, the default version")],
        "requestBody": json_body({"anyOf": [row, _list_of(row)]}),
        "responses": {
            "200": json_answer("The prediction, or a list of them", _answers(row)),
            **problem_answers(*_WRONG),
        },
    }


_FORMS = """\
The body is the model's features, `{"features": ...}`, or `{"input": ...}`, which is preprocessed first. In the place of
one object a list of them may stand, and then the answer has a list of `outputs`, in the same order. A body whose only
field is `features` or `input` is always understood as one of the latter two."""


def _answers(output: dict[str, Any]) -> dict[str, Any]:
    service = {"type": "object", "properties": _VERSION | _SERVICE, "required": [*_VERSION, *_SERVICE]}
    listed = {"type": "object", "properties": {"outputs": _list_of(output)}, "required": ["outputs"]}
    # The object has the output's fields and the service's, so the output's schema must not forbid additional ones.
    single = {"type": "object", "description": "The fields of the output, and these"}
    return {"allOf": [service], "anyOf": [listed, single]}


def _list_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


def _wrapped(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"anyOf": [schema, _list_of(schema)]}},
        "required": [name],
        "additionalProperties": False,
    }


def _request_examples(package: ModelPackage) -> dict[str, Any]:
    examples: dict[str, Any] = {}
    for example in package.examples:
        stage, value = ("input", example.input) if example.input is not None else ("features", example.features)
        examples[example.title.en if example.title else f"Example {len(examples) + 1}"] = {stage: value}
    return examples


def _answered(example: Example) -> dict[str, Any]:
    return {**example.output, "timestamp": _MOMENT, "service_version": foretell.__version__}


_NAME = path_parameter("name", "The model's name", FLIGHT_DELAY)
_MODEL = {
    "type": "object",
    "required": ["name", "version", "versions", "ready", "input_schema", "features_schema", "output_schema"],
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "default_version": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "ready": {"type": "boolean"},
        "reason": {"type": "string", "description": "Why it is not ready"},
        "input_schema": {"type": "object"},
        "features_schema": {"type": "object"},
        "output_schema": {"type": "object"},
    },
}
_LIST_MODELS = {
    "tags": ["models"],
    "operationId": "list_models",
    "summary": "Every model",
    "responses": {
        "200": json_answer(
            "The default version of each model, and the packages that can't be served",
            {
                "type": "object",
                "required": ["items", "unavailable"],
                "properties": {
                    "items": {"type": "array", "items": _MODEL},
                    "unavailable": {"type": "array", "items": {"type": "object"}},
                },
            },
        )
    },
}
_SHOW_MODEL = {
    "tags": ["models"],
    "operationId": "show_model",
    "summary": "One model",
    "parameters": [_NAME, query_parameter("version", "Without one, the default version")],
    "responses": {"200": json_answer("A version of a model, with its schemas", _MODEL), **problem_answers(404, 422)},
}

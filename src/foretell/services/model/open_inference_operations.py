"""The OpenAPI operations of `/v2`."""

from typing import Any

from foretell.contracts import open_inference as v2
from foretell.contracts.openapi import json_answer, json_body, path_parameter, reference

#: The structs that the operations refer to.
STRUCTS = (
    v2.ServerMetadata,
    v2.ModelMetadata,
    v2.InferRequest,
    v2.InferResponse,
    v2.RepositoryIndexRequest,
    v2.RepositoryModel,
    v2.Error,
)

_NAME = path_parameter("name", "The model's name", "flight-delay")
_VERSION = path_parameter("version", "One of its versions", "1.0.0")
_TOKEN = {
    "name": "Authorization",
    "in": "header",
    "description": "`Bearer` and the admin token (FORETELL_ADMIN_TOKEN)",
    "schema": {"type": "string"},
}
_HEADER_LENGTH = {
    "name": v2.HEADER_LENGTH,
    "in": "header",
    "description": "The length of the JSON in front of binary tensors; without them, leave it out",
    "schema": {"type": "integer"},
}
_INFER_EXAMPLE = {
    "id": "1",
    "inputs": [
        {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["AA"]},
        {"name": "dep_hour", "shape": [1], "datatype": "INT64", "data": [9]},
        {"name": "distance", "shape": [1], "datatype": "FP64", "data": [550.0]},
        {"name": "weather_delay", "shape": [1], "datatype": "FP64", "data": [0.0]},
    ],
}


def open_inference_paths() -> dict[str, Any]:
    """The paths of the protocol."""
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("server_metadata", "Metadata of the server", _struct(v2.ServerMetadata))},
        "/v2/health/live": {"get": _operation("server_live", "Whether the server answers", _flag("live"))},
        "/v2/health/ready": {"get": _operation("server_ready", "Whether the models are loaded", _flag("ready"), 400)},
        "/v2/repository/index": {"post": _index()},
    }
    for change in ("load", "unload"):
        operation = _operation(
            f"{change}_model", f"{change.capitalize()} a model", {"type": "object"}, 400, 401, 403, 404
        )
        paths[f"/v2/repository/models/{{name}}/{change}"] = {
            "post": operation | {"parameters": [_NAME, _TOKEN], "requestBody": _optional({"type": "object"})}
        }
    for path, suffix, parameters in (
        ("/v2/models/{name}", "", [_NAME]),
        ("/v2/models/{name}/versions/{version}", "_version", [_NAME, _VERSION]),
    ):
        paths[path] = {
            "get": _of_model(f"model{suffix}_metadata", "Inputs and outputs", _struct(v2.ModelMetadata), parameters)
        }
        paths[f"{path}/ready"] = {
            "get": _of_model(f"model{suffix}_ready", "Whether it is ready", _flag("ready"), parameters)
        }
        paths[f"{path}/config"] = {
            "get": _of_model(
                f"model{suffix}_config", "Its configuration, as Triton says it", {"type": "object"}, parameters
            )
        }
        paths[f"{path}/infer"] = {"post": _infer(f"infer{suffix}", parameters)}
    return paths


def _infer(operation_id: str, parameters: list[Any]) -> dict[str, Any]:
    operation = _of_model(
        operation_id,
        "Tensors in, tensors out",
        _struct(v2.InferResponse),
        [*parameters, _HEADER_LENGTH],
        413,
        500,
        503,
        504,
    )
    return operation | {"requestBody": json_body(_struct(v2.InferRequest), {"One flight": _INFER_EXAMPLE})}


def _index() -> dict[str, Any]:
    listed = {"type": "array", "items": _struct(v2.RepositoryModel)}
    operation = _operation("repository_index", "Every version of every model", listed, 400, 401)
    return operation | {"parameters": [_TOKEN], "requestBody": _optional(_struct(v2.RepositoryIndexRequest))}


def _of_model(operation_id: str, summary: str, schema: Any, parameters: list[Any], *wrong: int) -> dict[str, Any]:
    return _operation(operation_id, summary, schema, 400, 404, *wrong) | {"parameters": parameters}


def _operation(operation_id: str, summary: str, schema: dict[str, Any], *wrong: int) -> dict[str, Any]:
    errors = {str(status): json_answer("Why not", _struct(v2.Error)) for status in wrong}
    return {
        "tags": ["open inference protocol"],
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": json_answer("The answer", schema), **errors},
    }


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    return json_body(schema) | {"required": False}


def _struct(struct: type) -> dict[str, Any]:
    return reference(struct.__name__)


def _flag(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "boolean"}}, "required": [name]}

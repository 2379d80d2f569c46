"""The OpenAPI operations of `/v2`."""

from typing import Any

import msgspec

from foretell.contracts import open_inference as v2
from foretell.contracts.openapi import json_answer, json_body, path_parameter, reference
from foretell.inference.registry import ModelNotFound
from foretell.kit.asgi import BodyTooLarge
from foretell.kit.errors import ForetellError
from foretell.services.model.admin import AdminTokenNeeded, AdminTokenNotSet
from foretell.services.model.calls import ModelHangs, ModelTimeout
from foretell.services.model.models import ModelNotLoaded, ModelNotReady
from foretell.services.model.routes.open_inference import InvalidInference, ModelsLoading, RowFailed, error_answer
from foretell.services.model.tensors import InvalidTensor

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
_INVALID = InvalidTensor(name="distance", reason="in row 0, 3.7 does not fit the datatype INT32")
_NOT_READY = ModelNotReady(model="flight-delay", version="1.0.0", reason="It was unloaded.")
_NOT_FOUND = ModelNotFound(model="wine")
#: What may go wrong in a prediction, besides a missing model.
_FAILURES = (
    _INVALID,
    BodyTooLarge(max_bytes=16 << 20),
    RowFailed(row=0, reason="The model failed on this input."),
    ModelHangs(model="flight-delay"),
    ModelTimeout(model="flight-delay", timeout_s=10),
)
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
        "/v2/health/ready": {
            "get": _operation("server_ready", "Whether the models are loaded", _flag("ready"), ModelsLoading())
        },
        "/v2/repository/index": {"post": _index()},
    }
    for change in ("load", "unload"):
        operation = _operation(
            f"{change}_model",
            f"{change.capitalize()} a model",
            {"type": "object"},
            ModelNotLoaded(model="flight-delay", reason="The package lacks a file."),
            AdminTokenNeeded(),
            AdminTokenNotSet(),
            _NOT_FOUND,
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
        *_FAILURES,
    )
    return operation | {"requestBody": json_body(_struct(v2.InferRequest), {"One flight": _INFER_EXAMPLE})}


def _index() -> dict[str, Any]:
    listed = {"type": "array", "items": _struct(v2.RepositoryModel)}
    operation = _operation(
        "repository_index",
        "Every version of every model",
        listed,
        InvalidInference(reason="The value must be an object, not null"),
        AdminTokenNeeded(),
    )
    return operation | {"parameters": [_TOKEN], "requestBody": _optional(_struct(v2.RepositoryIndexRequest))}


def _of_model(
    operation_id: str, summary: str, schema: Any, parameters: list[Any], *errors: ForetellError
) -> dict[str, Any]:
    errors = errors or (_NOT_READY,)
    return _operation(operation_id, summary, schema, *errors, _NOT_FOUND) | {"parameters": parameters}


def _operation(operation_id: str, summary: str, schema: dict[str, Any], *errors: ForetellError) -> dict[str, Any]:
    """An operation; each of `errors` is the example of its status."""
    wrong = {}
    for error in errors:
        answer = error_answer(error, "")
        example = msgspec.json.decode(answer.body)
        wrong[str(answer.status)] = json_answer(example["error"], _struct(v2.Error), example)
    return {
        "tags": ["open inference protocol"],
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": json_answer("The answer", schema), **wrong},
    }


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    return json_body(schema) | {"required": False}


def _struct(struct: type) -> dict[str, Any]:
    return reference(struct.__name__)


def _flag(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "boolean"}}, "required": [name]}

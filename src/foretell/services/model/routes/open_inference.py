"""`/v2`: the Open Inference Protocol for every model, for `tritonclient.http` and other clients.

A model's inputs are its features, each a separate tensor (see `tensors.py`). Errors are `{"error": text}`. Answers are
never compressed, because `tritonclient.http.aio` can't read compressed ones.
"""

import asyncio
import re
from collections.abc import Mapping
from math import ceil
from typing import Any, TypeVar

import msgspec

import foretell
from foretell.contracts import open_inference as v2
from foretell.contracts.messages import Failure
from foretell.kit import structs
from foretell.kit.asgi import Body
from foretell.kit.errors import ForetellError
from foretell.kit.misfits import misfit_of
from foretell.kit.problems import Failed
from foretell.kit.routing import Answer, Request, Route, allowed, bytes_answer, encode, json_answer
from foretell.services.model.calls import ModelCalls
from foretell.services.model.models import ModelLoading, ModelNotReady, Models
from foretell.services.model.tensors import LEFT_OUT, Column, Tensor, Weigh, as_list, size_of

PREFIX = "/v2"

_SERVER = v2.ServerMetadata("foretell", foretell.__version__, ["binary_tensor_data", "model_repository"])
#: Parameters that change the result. They are refused, because ignoring them would give a wrong answer.
_UNSUPPORTED = ("classification", "shared_memory_region", "sequence_id")
_NO_JSON = "it must be JSON, in UTF-8 and not nested too deep"
#: NaN and Infinity as Python's `json` writes them, which is invalid JSON.
_writes_no_number = re.compile(rb"[\[,:]\s*-?(?:NaN|Infinity)\b").search
_HEADER_LENGTH = v2.HEADER_LENGTH.lower().encode()

Struct = TypeVar("Struct", bound=msgspec.Struct)
#: The values of the inputs, by name.
Columns = dict[str, Column]


class ModelsLoading(ForetellError):
    """The models are being loaded."""

    code = "models_loading"
    status = 400


class InvalidInference(ForetellError):
    """This is no request for an inference: {reason}."""

    code = "invalid_inference_request"
    status = 400


class AnswerTooLarge(ForetellError):
    """The answer would have more than {max_bytes} bytes. Ask for fewer than {rows} rows at once, or fewer outputs."""

    code = "answer_too_large"
    status = 400


class RowRefused(ForetellError):
    """Row {row}: {reason}"""

    code = "invalid_input"
    status = 400


class RowFailed(Failed):
    """Row {row}: {reason}"""

    code = "model_error"


def error_answer(error: ForetellError, _: str) -> Answer:
    """`error` in the protocol's format."""
    # Not ready is 400 in this protocol. A model that is being loaded keeps its own status, since a retry will succeed.
    not_ready = isinstance(error, ModelNotReady) and not isinstance(error, ModelLoading)
    status = 400 if not_ready or error.status == 422 else error.status
    text = error.message
    if status == 500 and not isinstance(error, Failed):
        text = "Something went wrong on our side. It was logged under the X-Request-ID of this answer."
    headers = [(b"www-authenticate", b'Bearer realm="foretell"')] if status == 401 else allowed(error)
    if status == 503 and error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % ceil(error.retry_after_s)))
    return json_answer(v2.Error(text), status, headers)


class OpenInference:
    """The protocol's routes, except those of the repository.

    `max_rows` limits the rows of a request, `max_answer_bytes` the size of its answer.
    """

    def __init__(self, models: Models, *, max_rows: int, max_answer_bytes: int) -> None:
        self._models = models
        self._max_rows = max_rows
        self._max_answer_bytes = max_answer_bytes

    @property
    def routes(self) -> list[Route]:
        """All routes. Those of a model exist with and without a version; without one, they use the default version."""
        routes = [
            Route("GET", "/v2", self.server_metadata),
            Route("GET", "/v2/health/live", self.server_live),
            Route("GET", "/v2/health/ready", self.server_ready),
        ]
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route("GET", model, self.model_metadata),
                Route("GET", f"{model}/ready", self.model_ready),
                Route("GET", f"{model}/config", self.model_config),
                Route("POST", f"{model}/infer", self.infer),
            ]
        return routes

    async def server_metadata(self, request: Request) -> Answer:
        """The server's name, version and extensions."""
        return json_answer(_SERVER)

    async def server_live(self, request: Request) -> Answer:
        """Liveness: always 200."""
        return json_answer({"live": True})

    async def server_ready(self, request: Request) -> Answer:
        """Readiness: whether every load has succeeded or failed."""
        if not self._models.all_tried:
            raise ModelsLoading
        return json_answer({"ready": True})

    async def model_metadata(self, request: Request) -> Answer:
        """The input and output tensors of a model."""
        calls = self._calls(request)
        package = calls.package
        return json_answer(
            v2.ModelMetadata(
                name=package.name,
                versions=self._models.registry.versions(package.name),
                platform=f"foretell_{package.manifest.runtime}",
                inputs=[tensor.metadata for tensor in calls.signature.inputs.values()],
                outputs=[tensor.metadata for tensor in calls.signature.outputs.values()],
            )
        )

    async def model_ready(self, request: Request) -> Answer:
        """Whether a model is ready."""
        try:
            return json_answer({"name": self._calls(request).package.name, "ready": True})
        except ModelLoading as error:
            return json_answer(v2.Error(error.message), 400)

    async def model_config(self, request: Request) -> Answer:
        """The same as `model_metadata` in the format of Triton's model configuration extension."""
        calls = self._calls(request)
        return json_answer(
            {
                "name": calls.package.name,
                "platform": f"foretell_{calls.package.manifest.runtime}",
                "backend": calls.package.manifest.runtime,
                # In Triton, 0 means that the shapes include the batch dimension, as ours do.
                "max_batch_size": 0,
                "input": [_configured(tensor) for tensor in calls.signature.inputs.values()],
                "output": [_configured(tensor) for tensor in calls.signature.outputs.values()],
            }
        )

    async def infer(self, request: Request) -> Answer:
        """Tensors in, tensors out."""
        calls = self._calls(request)
        asked, binaries = _read(request, await request.body())
        wanted = _wanted(asked, calls)
        columns = self._columns(asked, binaries, calls, request.weigh)
        length = len(next(iter(columns.values()), ()))
        outputs: list[list[Any]] = [[] for _ in wanted]
        # In parts, because rows as Python objects are many times as large as columns.
        for start in range(0, length, calls.package.max_batch):
            if start:
                # Other requests run in between.
                await asyncio.sleep(0)
            rows = _rows(columns, slice(start, start + calls.package.max_batch), calls)
            outcomes = (
                [await calls.predict_one(rows[0], "features")]
                if length == 1
                else await calls.predict_many(rows, "features")
            )
            for number, outcome in enumerate(outcomes, start):
                if isinstance(outcome, Failure):
                    refused = outcome.code == "invalid_input"
                    raise (RowRefused if refused else RowFailed)(row=number, reason=outcome.message)
                for values, (tensor, _) in zip(outputs, wanted, strict=True):
                    values.append(outcome.get(tensor.name))
        made: list[tuple[v2.InferOutput, bytes]] = []
        room = self._max_answer_bytes
        for values, (tensor, binary) in zip(outputs, wanted, strict=True):
            made.append(tensor.output(values, binary=binary))
            room -= size_of(*made[-1])
            if room < 0:
                raise AnswerTooLarge(max_bytes=self._max_answer_bytes, rows=length)
        package = calls.package
        head = encode(
            v2.InferResponse(package.name, package.version, outputs=[output for output, _ in made], id=asked.id)
        )
        if not any(binary for _, binary in wanted):
            return bytes_answer(head, b"application/json")
        return bytes_answer(
            b"".join((head, *(content for _, content in made))),
            b"application/octet-stream",
            headers=[(_HEADER_LENGTH, b"%d" % len(head))],
        )

    def _calls(self, request: Request) -> ModelCalls:
        return self._models.get(request.parameters["name"], request.parameters.get("version"))

    def _columns(
        self, asked: v2.InferRequest, binaries: Mapping[str, memoryview], calls: ModelCalls, weigh: Weigh
    ) -> Columns:
        """The values of each tensor. Raises `InvalidTensor`, `InvalidInference` and what `weigh` raises."""
        columns: Columns = {}
        for given in asked.inputs:
            tensor = calls.signature.inputs.get(given.name)
            if tensor is None or given.name in columns:
                names = ", ".join(calls.signature.inputs)
                raise InvalidInference(reason=f"the inputs are {names}, each once; {given.name[:60]!r} is too much")
            if given.shape and given.shape[0] > self._max_rows:
                raise InvalidInference(reason=f"it has more than {self._max_rows} rows")
            columns[given.name] = tensor.values(given, binaries.get(given.name), weigh)
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidInference(reason=f"its inputs differ in their number of rows: {lengths}")
        return columns


def _rows(columns: Columns, part: slice, calls: ModelCalls) -> list[dict[str, Any]]:
    """A row of features for each row of the tensors in this part."""
    values = [as_list(column[part]) for column in columns.values()]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    if any(calls.signature.inputs[name].left_out for name in columns):
        rows = [{name: value for name, value in row.items() if value is not LEFT_OUT} for row in rows]
    return rows


def read_struct(request: Request, body: Body, kind: type[Struct]) -> Struct:
    """Decode a body as a `kind`. Raises `InvalidInference`, `BodyTooHeavy`, `TooMuchUnderWay`."""
    request.weigh(body)
    try:
        return structs.decode(body, kind)
    except msgspec.ValidationError as error:
        raise InvalidInference(reason=misfit_of(error).sentence) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        no_number = _writes_no_number(body)
        reason = "JSON has no NaN and no Infinity; null stands for what is missing" if no_number else _NO_JSON
        raise InvalidInference(reason=reason) from None


def _read(request: Request, body: Body) -> tuple[v2.InferRequest, dict[str, memoryview]]:
    """The request, and the bytes of its binary inputs."""
    raw_length = request.header(_HEADER_LENGTH)
    length = len(body)
    if raw_length is not None:
        if not raw_length.isdigit() or len(raw_length) > 12 or int(raw_length) > length:
            raise InvalidInference(reason=f"{v2.HEADER_LENGTH} must be a length within the body's {length} bytes")
        length = int(raw_length)
    asked = read_struct(request, body if length == len(body) else body[:length], v2.InferRequest)
    _refuse_unsupported(asked)
    sizes = {
        given.name: size
        for given in asked.inputs
        if (size := _size(_of(given.parameters, "binary_data_size"))) is not None
    }
    try:
        parts = v2.split_binary(memoryview(body)[length:], list(sizes.values()))
    except ValueError as error:
        raise InvalidInference(reason=str(error)) from None
    return asked, dict(zip(sizes, parts, strict=True))


def _of(parameters: v2.Parameters | None, name: str) -> Any:
    return None if parameters is None else parameters.get(name)


def _size(value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise InvalidInference(reason="binary_data_size must be a number of bytes")


def _refuse_unsupported(asked: v2.InferRequest) -> None:
    given = [asked.parameters]
    given += [tensor.parameters for tensor in asked.inputs]
    given += [output.parameters for output in asked.outputs or ()]
    for name in _UNSUPPORTED:
        if any(_of(parameters, name) for parameters in given):
            raise InvalidInference(reason=f"the parameter {name} is not supported")


def _wanted(asked: v2.InferRequest, calls: ModelCalls) -> list[tuple[Tensor, bool]]:
    """The requested outputs in order, and whether each is binary."""
    by_default = _of(asked.parameters, "binary_data_output") is True
    if not asked.outputs:
        return [(tensor, by_default) for tensor in calls.signature.outputs.values()]
    left = dict(calls.signature.outputs)
    wanted = []
    for output in asked.outputs:
        tensor = left.pop(output.name, None)
        if tensor is None:
            names = ", ".join(calls.signature.outputs)
            why = "is asked for twice" if output.name in calls.signature.outputs else "is none of them"
            raise InvalidInference(reason=f"the outputs are {names}; {output.name[:60]!r} {why}")
        chosen = _of(output.parameters, "binary_data")
        wanted.append((tensor, by_default if chosen is None else chosen is True))
    return wanted


def _configured(tensor: Tensor) -> dict[str, Any]:
    kind = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
    return {"name": tensor.name, "data_type": kind, "dims": tensor.metadata.shape}

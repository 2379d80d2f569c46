"""Models on another server with the Open Inference Protocol over HTTP: Triton, KServe, MLServer, Foretell.

    [options]
    url = "http://triton:8000"
    model = "flight-delay"            # its name there
    model_version = "3"               # default: the server chooses
    timeout_s = 2.0                   # of one request; default: a third of the package's own
    token_variable = "TRITON_TOKEN"   # environment variable with a bearer token, if the server needs one
    inputs = [
      { tensor = "carrier", datatype = "BYTES", features = ["carrier"] },
      { tensor = "numbers", datatype = "FP32", features = ["dep_hour", "distance"] },    # shape (rows, 2)
    ]
    outputs = [
      { field = "probability", tensor = "probabilities", column = 1, decimals = 4 },
      { field = "scores", tensor = "probabilities" },                                    # the row as a list
    ]

The server is not contacted when the package is loaded, because it may start later.
"""

import http.client
import math
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec

from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken, read_options
from foretell.inference.runtimes import NOTHING_MORE, ModelAway, Permissions

Row = dict[str, Any]

#: A larger answer can't be the answer to `max_batch` rows.
_MOST_BYTES = 64 * 1024 * 1024
#: Statuses that do not depend on the rows: every request would get them.
_AWAY = frozenset({401, 403, 404, 408, 425, 429, 500, 502, 503, 504})

Datatype = Literal[
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BYTES"
]  # fmt: skip


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the request: a column for each feature."""

    tensor: str
    datatype: Datatype
    features: list[str]
    #: Shape (rows,) in place of (rows, 1), for a tensor of one feature.
    flat: bool = False


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one field of the answer is read from a tensor."""

    field: str
    tensor: str
    column: int | None = None
    decimals: int | None = None


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `options` of a manifest whose runtime is remote."""

    url: str
    model: str
    inputs: list[Input]
    outputs: list[Output]
    model_version: str = ""
    timeout_s: float = 0.0
    token_variable: str = ""


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[Any]


class _Answer(msgspec.Struct):
    outputs: list[_Tensor]


_decode = msgspec.json.Decoder(_Answer).decode


class RefusedByServer(Exception):
    """The server refuses this request; its message is dropped, because it may contain values."""


class RemoteModel:
    """Calls the server; keeps idle connections open."""

    def __init__(self, options: Options, *, timeout_s: float, token: str = "") -> None:
        parts = urlsplit(options.url)
        self._options = options
        self._timeout_s = timeout_s
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._address = parts.netloc.rpartition("@")[2]
        version = f"/versions/{quote(options.model_version, safe='')}" if options.model_version else ""
        self._path = f"{parts.path.rstrip('/')}/v2/models/{quote(options.model, safe='')}{version}/infer"
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._wanted = [{"name": name} for name in dict.fromkeys(output.tensor for output in options.outputs)]
        self._idle: deque[http.client.HTTPConnection] = deque()

    def predict(self, rows: list[Row]) -> list[Row]:
        inputs = [_tensor(each, rows) for each in self._options.inputs]
        body = msgspec.json.encode({"inputs": inputs, "outputs": self._wanted})
        try:
            tensors = {tensor.name: tensor for tensor in _decode(self._ask(body)).outputs}
        except msgspec.DecodeError as error:
            raise ModelAway("the answer is not of the Open Inference Protocol") from error
        columns = [_values(tensors[output.tensor], output, len(rows)) for output in self._options.outputs]
        names = [output.field for output in self._options.outputs]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        self.close()

    def _ask(self, body: bytes) -> bytes:
        """The body of the answer. Raises `ModelAway`, `RefusedByServer`."""
        try:
            while self._idle:
                # The server may have closed the connection. Repeating is harmless: answers depend only on the rows.
                with suppress(http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                    return self._ask_on(self._idle.pop(), body)
            return self._ask_on(self._connect(self._address, timeout=self._timeout_s), body)
        except (OSError, http.client.HTTPException) as error:
            raise ModelAway(type(error).__name__) from error

    def _ask_on(self, connection: http.client.HTTPConnection, body: bytes) -> bytes:
        try:
            connection.request("POST", self._path, body, self._headers)
            answer = connection.getresponse()
            content: bytes = answer.read(_MOST_BYTES + 1)
        except BaseException:
            connection.close()
            raise
        if len(content) > _MOST_BYTES:
            connection.close()
            raise ModelAway("the answer is too large")
        self._idle.append(connection)
        if answer.status == 200:
            return content
        # Redirects are not followed, and the server's message is dropped, because it may contain values of the input.
        if answer.status in _AWAY or answer.status < 400:
            raise ModelAway(f"the server answered {answer.status}")
        raise RefusedByServer(f"the server answered {answer.status}")


def load(package: ModelPackage, _: Permissions = NOTHING_MORE) -> RemoteModel:
    """Check the options; the server is not contacted yet. Raises `PackageBroken`."""
    options = read_options(package, Options)
    manifest = package.path / MANIFEST
    parts = urlsplit(options.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PackageBroken(f"This is no address of a server: {options.url}", manifest, "Write http://HOST:PORT.")
    required = set(package.features_schema.get("required", ()))
    optional = sorted({name for each in options.inputs for name in each.features} - required)
    if optional:
        raise PackageBroken(
            f"The model needs features that the schema does not require: {optional}",
            package.path / "features.schema.json",
            "Add them to `required`.",
        )
    if not options.inputs or not options.outputs:
        raise PackageBroken("There are no inputs or no outputs", manifest, "Name them under [options].")
    token = ""
    if options.token_variable:
        token = os.environ.get(options.token_variable, "")
        if not token:
            raise PackageBroken(
                f"The environment variable {options.token_variable} is not set", manifest, "Set it to the token."
            )
    return RemoteModel(options, timeout_s=options.timeout_s or package.timeout_s / 3, token=token)


def _tensor(wanted: Input, rows: list[Row]) -> dict[str, Any]:
    convert: Any = float if wanted.datatype.startswith("FP") else None
    data = [row[name] for row in rows for name in wanted.features]
    shape = [len(rows)] if wanted.flat else [len(rows), len(wanted.features)]
    return {
        "name": wanted.tensor,
        "shape": shape,
        "datatype": wanted.datatype,
        "data": [convert(value) for value in data] if convert else data,
    }


def _values(tensor: _Tensor, output: Output, rows: int) -> list[Any]:
    """One value per row from a tensor of shape (rows,) or (rows, n), whose data may be flat or nested."""
    flat = _flat(tensor.data)
    width, rest = divmod(len(flat), rows)
    if rest or math.prod(tensor.shape) != len(flat) or not width:
        raise ModelAway("the answer's shape does not fit the question")
    table = [flat[start : start + width] for start in range(0, len(flat), width)]
    if output.column is not None:
        values: list[Any] = [row[output.column] for row in table]
    else:
        values = [row[0] for row in table] if width == 1 else table
    return [_rounded(value, output.decimals) for value in values]


def _flat(data: Sequence[Any]) -> list[Any]:
    while data and isinstance(data[0], list):
        data = [value for part in data for value in part]
    return list(data)


def _rounded(value: Any, decimals: int | None) -> Any:
    if decimals is None:
        return value
    return [round(part, decimals) for part in value] if isinstance(value, list) else round(value, decimals)

"""Models in ONNX, run by onnxruntime on one thread.

The manifest maps features to inputs of the graph. One float matrix with a column for each feature is fastest:

    [options]
    matrix = "features"                        # the graph's input of shape (rows, columns), float
    columns = [
      { feature = "carrier", categories = ["AA", "UA"] },   # a text becomes its position in this list: 0.0, 1.0
      { feature = "distance" },
    ]

Without `matrix` each feature is a separate input of shape (rows, 1) or (rows,) and the type in the graph;
`columns` then defaults to the graph's inputs. For a graph with a fixed number of rows the last row is
repeated. `outputs` maps the outputs of the graph to fields of the answer:

    outputs = [
      { field = "probability", tensor = "probabilities", column = 1, decimals = 4 },
      { field = "prediction", tensor = "probabilities", column = 1, decimals = 4, threshold = 0.5 },
    ]

`column` selects one column of a (rows, n) tensor; without it the value is the whole row (a list, or one value if the
tensor has one column). `decimals` rounds; `threshold` gives 1 at or above it and 0 below, after rounding, so that the
decision never contradicts the shown number.

Weights in files beside the graph ("external data", as written by torch.onnx.export) are listed with their
hashes under [files] of the manifest, and are passed to the library as bytes: it opens no file itself.
"""

import os
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import PurePosixPath
from typing import Any

# Read by the library when it is first loaded. Without it, onnxruntime stores an id of this machine in the home folder
# and sends usage data to its vendor.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import msgspec
import numpy
import onnxruntime

from foretell.inference.package import (
    MANIFEST,
    InvalidField,
    ModelPackage,
    PackageBroken,
    read_artifact,
    read_file,
    read_options,
)
from foretell.inference.runtimes import NOTHING_MORE, Permissions
from foretell.inference.runtimes.onnx_files import external_files

_TENSOR_TYPES: dict[str, Any] = {
    "tensor(string)": object,
    "tensor(float16)": numpy.float16,
    "tensor(float)": numpy.float32,
    "tensor(double)": numpy.float64,
    "tensor(int8)": numpy.int8,
    "tensor(int16)": numpy.int16,
    "tensor(int32)": numpy.int32,
    "tensor(int64)": numpy.int64,
    "tensor(uint8)": numpy.uint8,
    "tensor(uint16)": numpy.uint16,
    "tensor(uint32)": numpy.uint32,
    "tensor(uint64)": numpy.uint64,
    "tensor(bool)": numpy.bool_,
}

Row = dict[str, Any]
Feeds = dict[str, Any]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one feature is converted to numbers."""

    feature: str
    categories: list[str] | None = None


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one field of the answer is read from the graph's outputs."""

    field: str
    tensor: str
    column: int | None = None
    decimals: int | None = None
    threshold: float | None = None


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `options` of a manifest whose runtime is onnx."""

    outputs: list[Output]
    matrix: str | None = None
    columns: list[Column] = []


class OnnxModel:
    """A loaded graph; the module's docstring describes `options`."""

    def __init__(self, session: Any, options: Options) -> None:
        self._session = session
        self._fields = [output.field for output in options.outputs]
        self._tensors = list(dict.fromkeys(output.tensor for output in options.outputs))
        #: The columns to read from the tensors, each once; and for each field its column and threshold.
        self._columns = list(dict.fromkeys(_column_of(output) for output in options.outputs))
        self._sources = [(self._columns.index(_column_of(output)), output.threshold) for output in options.outputs]
        self._feeds = _matrix_feeds(options) if options.matrix else _named_feeds(options, session)
        self._fixed_rows = fixed_rows(session)

    def predict(self, rows: list[Row]) -> list[Row]:
        if self._fixed_rows is not None:
            return self._answers([*rows, *rows[-1:] * (self._fixed_rows - len(rows))])[: len(rows)]
        return self._answers(rows)

    def _answers(self, rows: list[Row]) -> list[Row]:
        tensors = dict(zip(self._tensors, self._session.run(self._tensors, self._feeds(rows)), strict=True))
        columns = [_read(tensors[name], column, decimals) for name, column, decimals in self._columns]
        first, *others = [
            columns[place] if threshold is None else _decided(columns[place], threshold)
            for place, threshold in self._sources
        ]
        # Field by field, because building row by row takes five times as long.
        answers: list[Row] = [{self._fields[0]: value} for value in first]
        for field, values in zip(self._fields[1:], others, strict=True):
            for answer, value in zip(answers, values, strict=True):
                answer[field] = value
        return answers


def load(package: ModelPackage, _: Permissions = NOTHING_MORE) -> OnnxModel:
    """Check the artifact's hash and load it. Raises `PackageBroken`."""
    options = read_options(package, Options)
    content = read_artifact(package)
    beside = PurePosixPath(package.manifest.artifact).parent
    try:
        weights = {name: read_file(package, str(beside / name)) for name in external_files(content)}
        session = open_session(content, weights)
    except PackageBroken:
        raise
    except Exception as error:  # onnxruntime's errors have no ancestor of their own
        raise PackageBroken(
            f"onnxruntime cannot load the artifact: {error}", package.artifact_path, "Export the model again."
        ) from error
    options = _checked(options, session, package)
    return OnnxModel(session, options)


def open_session(content: bytes, weights: Mapping[str, bytes] | None = None) -> Any:
    """A session for small models on a shared machine: one thread, without busy waiting.

    `weights` are the graph's files of weights, by their names in the graph. No other file is opened.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Errors are raised as exceptions; the library must not print them, too, with values in them.
    settings.log_severity_level = 4
    # A graph in memory would read weights from the current folder, which is not trusted.
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    if weights:
        contents = list(weights.values())
        settings.add_external_initializers_from_files_in_memory(list(weights), contents, list(map(len, contents)))
    return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def fixed_rows(session: Any) -> int | None:
    """The fixed number of rows of the graph, or None."""
    rows = {entry.shape[0] for entry in session.get_inputs() if entry.shape}
    numbers = [size for size in rows if isinstance(size, int)]
    return min(numbers) if numbers else None


def integer_bounds(kind: str) -> tuple[int, int] | None:
    """The lowest and the highest value of a tensor type; None for types that are not integers."""
    dtype = _TENSOR_TYPES.get(kind, object)
    if not issubclass(dtype, numpy.integer):
        return None
    about = numpy.iinfo(dtype)
    return int(about.min), int(about.max)


def _checked(options: Options, session: Any, package: ModelPackage) -> Options:
    """`options` with defaults, checked against the graph and the schema of the features."""
    manifest = package.path / MANIFEST
    inputs = {entry.name: entry.type for entry in session.get_inputs()}
    tensors = {entry.name for entry in session.get_outputs()}
    if options.matrix is None and not options.columns:
        options = msgspec.structs.replace(options, columns=[Column(name) for name in inputs])
    wanted = {options.matrix} if options.matrix else {column.feature for column in options.columns}
    if wanted != set(inputs):
        raise PackageBroken(
            f"The graph takes {sorted(inputs)}, the options give {sorted(wanted)}", manifest, "Correct the options."
        )
    unsupported = sorted(kind for kind in inputs.values() if kind not in _TENSOR_TYPES)
    if unsupported or (options.matrix and inputs[options.matrix] != "tensor(float)"):
        raise PackageBroken(
            f"The graph's inputs have types that cannot be fed: {sorted(inputs.values())}",
            package.artifact_path,
            f"A matrix must be tensor(float); single inputs one of {sorted(_TENSOR_TYPES)}.",
        )
    fixed = fixed_rows(session)
    if fixed is not None and package.max_batch > fixed:
        raise PackageBroken(
            f"The graph takes exactly {fixed} rows a call, max_batch is {package.max_batch}",
            manifest,
            f"Set max_batch = {fixed}, or export the model with a dynamic first dimension.",
        )
    required = set(package.features_schema.get("required", ()))
    optional = sorted(column.feature for column in options.columns if column.feature not in required)
    if optional:
        raise PackageBroken(
            f"The model needs features that the schema does not require: {optional}",
            package.path / "features.schema.json",
            "Add them to `required`.",
        )
    missing = sorted({output.tensor for output in options.outputs} - tensors)
    if missing or not options.outputs:
        raise PackageBroken(
            f"The options read outputs {missing}, the graph gives {sorted(tensors)}", manifest, "Correct the options."
        )
    return options


def _matrix_feeds(options: Options) -> Callable[[list[Row]], Feeds]:
    name = options.matrix or ""
    plan = [(column.feature, _places(column.categories) if column.categories else None) for column in options.columns]

    def feeds(rows: list[Row]) -> Feeds:
        # An unknown category is a KeyError; the schema has refused it before.
        columns = [
            [row[feature] for row in rows] if places is None else [places[row[feature]] for row in rows]
            for feature, places in plan
        ]
        matrix = numpy.array(columns, dtype=numpy.float64).T
        # A number beyond float32 becomes infinite, which is correctly above every threshold of a tree.
        with numpy.errstate(over="ignore"):
            return {name: matrix.astype(numpy.float32, order="C")}

    return feeds


def _named_feeds(options: Options, session: Any) -> Callable[[list[Row]], Feeds]:
    entries = {entry.name: entry for entry in session.get_inputs()}
    plan = [
        (
            column.feature,
            _TENSOR_TYPES[entries[column.feature].type],
            integer_bounds(entries[column.feature].type),
            (-1,) if len(entries[column.feature].shape) == 1 else (-1, 1),
            _places(column.categories) if column.categories else None,
        )
        for column in options.columns
    ]

    def feeds(rows: list[Row]) -> Feeds:
        made: Feeds = {}
        with numpy.errstate(over="ignore"):
            for feature, kind, bounds, shape, places in plan:
                values = [row[feature] if places is None else places[row[feature]] for row in rows]
                if bounds is not None and not (bounds[0] <= min(values) and max(values) <= bounds[1]):
                    # NumPy would raise, or convert 1e300 to another number.
                    raise InvalidField(feature, f"must be between {bounds[0]} and {bounds[1]}")
                made[feature] = numpy.array(values, dtype=kind).reshape(shape)
        return made

    return feeds


def _places(categories: list[str]) -> dict[str, int]:
    return {category: place for place, category in enumerate(categories)}


def _column_of(output: Output) -> tuple[str, int | None, int | None]:
    return output.tensor, output.column, output.decimals


# For a few rows, the usual case, one step on an array takes longer than all these steps on lists; for many rows arrays
# are faster. Both give the same numbers.
_MANY = 32
#: A little more than the digits of float32.
_DECIMALS = 9


def _read(tensor: Any, column: int | None, decimals: int | None) -> list[Any]:
    """One value per row from a tensor of shape (rows,) or (rows, n)."""
    if column is not None:
        tensor = tensor[:, column]
    elif tensor.ndim == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if decimals is not None and len(tensor) > _MANY and tensor.dtype == numpy.float32 and 0 <= decimals <= _DECIMALS:
        # Rounding in 53 bits is exact for numbers of 24 bits: none is so close to the middle between two decimals.
        values: list[Any] = numpy.round(tensor.astype(numpy.float64), decimals).tolist()
        return values
    values = tensor.tolist()
    return values if decimals is None else [_rounded(value, decimals) for value in values]


def _rounded(value: Any, decimals: int) -> Any:
    if type(value) is list:
        return [_rounded(part, decimals) for part in value]
    return round(value, decimals)


def _decided(values: list[Any], threshold: float) -> list[Any]:
    """1 for each value at or above the threshold, else 0."""
    # NaN compares false with everything: without this check a broken model would answer 0.
    if len(values) > _MANY and type(values[0]) is float:
        array = numpy.array(values)
        decisions: list[Any] = (array >= threshold).astype(numpy.int64).tolist()
        finite = bool(numpy.isfinite(array).all())
    else:
        finite = all(map(_is_finite, values))
        decisions = [_decision(value, threshold) for value in values] if finite else []
    if not finite:
        raise ArithmeticError("the model's output is not finite")
    return decisions


def _is_finite(value: Any) -> bool:
    return all(map(_is_finite, value)) if type(value) is list else isfinite(value)


def _decision(value: Any, threshold: float) -> Any:
    if type(value) is list:
        return [_decision(part, threshold) for part in value]
    return 1 if value >= threshold else 0

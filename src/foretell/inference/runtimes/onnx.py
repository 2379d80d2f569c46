"""Models in ONNX, run by onnxruntime on one thread.

The manifest says how features become inputs of the graph. One float matrix, a column for each feature (the fastest):

    [options]
    matrix = "features"                        # the graph's input of shape (rows, columns), float
    columns = [
      { feature = "carrier", categories = ["AA", "UA"] },   # a text becomes its place in this list: 0.0, 1.0
      { feature = "distance" },
    ]

Without `matrix` each feature is an input of its own, of shape (rows, 1) and the type that the graph declares; `columns`
then defaults to the graph's inputs. Then how the outputs of the graph become fields of the answer:

    outputs = [
      { field = "probability", tensor = "probabilities", column = 1, decimals = 4 },
      { field = "prediction", tensor = "probabilities", column = 1, decimals = 4, threshold = 0.5 },
    ]

`column` takes one column of a (rows, n) tensor; without it the value is the row as it is (a list, or one value when the
tensor has one column). `decimals` rounds; `threshold` gives 1 at or above it and 0 below, after rounding, so that the
decision never contradicts the number beside it.
"""

import os
from collections.abc import Callable
from math import isfinite
from typing import Any

# Read by the library when it is first loaded. Without it, onnxruntime keeps an id of this machine in the home folder
# and reports what it runs to its maker: a self-hosted service tells nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import msgspec
import numpy
import onnxruntime

from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken, read_artifact, read_options
from foretell.inference.runtimes import NOTHING_MORE, Permissions

_TENSOR_TYPES: dict[str, Any] = {
    "tensor(string)": object,
    "tensor(float)": numpy.float32,
    "tensor(double)": numpy.float64,
    "tensor(int32)": numpy.int32,
    "tensor(int64)": numpy.int64,
    "tensor(bool)": numpy.bool_,
}

Row = dict[str, Any]
Feeds = dict[str, Any]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one feature becomes numbers."""

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
    """A loaded graph; see the top of this page for what `options` mean."""

    def __init__(self, session: Any, options: Options) -> None:
        self._session = session
        self._fields = [output.field for output in options.outputs]
        self._tensors = list(dict.fromkeys(output.tensor for output in options.outputs))
        #: What is read from the tensors, each once, and for each field which of these, and its threshold.
        self._columns = list(dict.fromkeys(_column_of(output) for output in options.outputs))
        self._sources = [(self._columns.index(_column_of(output)), output.threshold) for output in options.outputs]
        self._feeds = _matrix_feeds(options) if options.matrix else _named_feeds(options, session)

    def predict(self, rows: list[Row]) -> list[Row]:
        tensors = dict(zip(self._tensors, self._session.run(self._tensors, self._feeds(rows)), strict=True))
        columns = [_read(tensors[name], column, decimals) for name, column, decimals in self._columns]
        first, *others = [
            columns[place] if threshold is None else _decided(columns[place], threshold)
            for place, threshold in self._sources
        ]
        # Field by field: to make each row of its values takes five times as long.
        answers: list[Row] = [{self._fields[0]: value} for value in first]
        for field, values in zip(self._fields[1:], others, strict=True):
            for answer, value in zip(answers, values, strict=True):
                answer[field] = value
        return answers


def load(package: ModelPackage, _: Permissions = NOTHING_MORE) -> OnnxModel:
    """Check the artifact's hash and load it. Raises `PackageBroken`."""
    options = read_options(package, Options)
    content = read_artifact(package)
    try:
        session = open_session(content)
    except Exception as error:  # onnxruntime's errors have no ancestor of their own
        raise PackageBroken(
            f"onnxruntime cannot load the artifact: {error}", package.artifact_path, "Export the model again."
        ) from error
    options = _checked(options, session, package)
    return OnnxModel(session, options)


def open_session(content: bytes) -> Any:
    """A session for small models on a shared machine: one thread, that sleeps when there is nothing to do."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Errors come back as exceptions; the library need not print them as well, with values in them.
    settings.log_severity_level = 4
    return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def _checked(options: Options, session: Any, package: ModelPackage) -> Options:
    """`options` with the defaults filled in, once they agree with the graph and the schema of the features."""
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
        # An unknown category is a KeyError, never a guess; the schema has refused it before.
        columns = [
            [row[feature] for row in rows] if places is None else [places[row[feature]] for row in rows]
            for feature, places in plan
        ]
        matrix = numpy.array(columns, dtype=numpy.float64).T
        # A number beyond float32 becomes infinite: above every threshold of a tree, as it should be.
        with numpy.errstate(over="ignore"):
            return {name: matrix.astype(numpy.float32, order="C")}

    return feeds


def _named_feeds(options: Options, session: Any) -> Callable[[list[Row]], Feeds]:
    types = {entry.name: _TENSOR_TYPES[entry.type] for entry in session.get_inputs()}
    plan = [
        (column.feature, types[column.feature], _places(column.categories) if column.categories else None)
        for column in options.columns
    ]

    def feeds(rows: list[Row]) -> Feeds:
        made: Feeds = {}
        with numpy.errstate(over="ignore"):
            for feature, kind, places in plan:
                values = [row[feature] if places is None else places[row[feature]] for row in rows]
                made[feature] = numpy.array(values, dtype=kind).reshape(-1, 1)
        return made

    return feeds


def _places(categories: list[str]) -> dict[str, int]:
    return {category: place for place, category in enumerate(categories)}


def _column_of(output: Output) -> tuple[str, int | None, int | None]:
    return output.tensor, output.column, output.decimals


# For a few rows, which is what a busy service sees at once, each step on an array takes longer than all of these steps
# on lists; for many it is the other way round. Both give the same numbers.
_MANY = 32
#: As many as float32 has digits, and some.
_DECIMALS = 9


def _read(tensor: Any, column: int | None, decimals: int | None) -> list[Any]:
    """One value a row from a tensor of shape (rows,) or (rows, n)."""
    if column is not None:
        tensor = tensor[:, column]
    elif tensor.ndim == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if decimals is not None and len(tensor) > _MANY and tensor.dtype == numpy.float32 and 0 <= decimals <= _DECIMALS:
        # No number of 24 bits is so near to the middle of two decimals that a product of 53 bits could hide the side.
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
    # NaN compares false to everything: without this a broken model would answer 0 with confidence.
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

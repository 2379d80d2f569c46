"""Estimators of scikit-learn, however they were stored: what skops.py, joblib.py and mlflow.py have in common.

The manifest says how features become what the estimator takes:

    [options]
    columns = [                                # in the order of training
      { feature = "dep_hour" },
      { feature = "sepal_length_cm", column = "sepal length (cm)" },     # where the names differ
    ]
    frame = true                               # as a pandas DataFrame, for estimators that pick columns by name
    text = true                                # the one column is a list of texts, for vectorizers

and how its methods become fields of the answer. Without `outputs` there is one, `prediction`, from `predict`:

    outputs = [
      { field = "prediction", method = "predict" },
      { field = "probability", method = "predict_proba", column = 1, decimals = 4 },
      { field = "probabilities", method = "predict_proba", classes = true },   # {"setosa": 0.98, …}
    ]
"""

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

# Read by the OpenMP library when scikit-learn loads it. Beside a web server its threads only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy
from threadpoolctl import ThreadpoolController

from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken

Row = dict[str, Any]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column of what the estimator takes."""

    feature: str
    column: str = ""


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one field of the answer is read from the estimator."""

    field: str
    method: str = "predict"
    column: int | None = None
    decimals: int | None = None
    #: Name the columns by the estimator's classes.
    classes: bool = False


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `options` of a manifest whose runtime is one of scikit-learn's."""

    columns: list[Column]
    frame: bool = False
    text: bool = False
    outputs: list[Output] = msgspec.field(default_factory=lambda: [Output("prediction")])
    #: Types beyond scikit-learn's own that a skops file may contain.
    trusted: list[str] = []


class SklearnModel:
    """A loaded estimator; see the top of this page for what `options` mean."""

    def __init__(self, estimator: Any, options: Options, features_schema: dict[str, Any]) -> None:
        self._methods = {output.method: getattr(estimator, output.method) for output in options.outputs}
        self._outputs = options.outputs
        self._classes = [str(value) for value in getattr(estimator, "classes_", ())]
        self._values = _values_for(options, features_schema)
        # Threads of OpenMP are counted by each thread that calls it, so a limit set once here would not hold elsewhere.
        self._threads = ThreadpoolController().select(user_api="openmp")
        ThreadpoolController().limit(limits=1, user_api="blas")

    def predict(self, rows: list[Row]) -> list[Row]:
        values = self._values(rows)
        with self._threads.limit(limits=1):
            made = {name: numpy.asarray(method(values)) for name, method in self._methods.items()}
        columns = [self._field(made[output.method], output) for output in self._outputs]
        names = [output.field for output in self._outputs]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _field(self, values: Any, output: Output) -> list[Any]:
        if output.column is not None:
            values = values[:, output.column]
        if output.decimals is not None:
            values = values.astype(numpy.float64).round(output.decimals)
        if output.classes:
            return [dict(zip(self._classes, row, strict=True)) for row in values.tolist()]
        plain: list[Any] = values.tolist()
        return plain


def model(package: ModelPackage, estimator: Any, options: Options) -> SklearnModel:
    """`estimator` as a runtime, once the options agree with it and with the schema. Raises `PackageBroken`."""
    manifest = package.path / MANIFEST
    required = set(package.features_schema.get("required", ()))
    optional = sorted(column.feature for column in options.columns if column.feature not in required)
    if optional:
        raise PackageBroken(
            f"The model needs features that the schema does not require: {optional}",
            package.path / "features.schema.json",
            "Add them to `required`.",
        )
    missing = sorted({output.method for output in options.outputs if not hasattr(estimator, output.method)})
    if missing or not options.outputs:
        raise PackageBroken(
            f"The {type(estimator).__name__} has no {missing or 'outputs'}", manifest, "Correct `outputs`."
        )
    width = getattr(estimator, "n_features_in_", None)
    if width is not None and width != len(options.columns) and not options.text:
        raise PackageBroken(
            f"The {type(estimator).__name__} takes {width} columns, the options name {len(options.columns)}",
            manifest,
            "Correct `columns`.",
        )
    if options.frame and find_spec("pandas") is None:
        raise PackageBroken("The model picks its columns by name, which needs pandas", manifest, "Install pandas.")
    if options.text and len(options.columns) != 1:
        raise PackageBroken("Texts are one column", manifest, "Name one in `columns`, or leave out `text`.")
    # A matrix in the order of training is right without names; scikit-learn would remark on it at every call.
    warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
    return SklearnModel(estimator, options, package.features_schema)


def _values_for(options: Options, features_schema: dict[str, Any]) -> Callable[[list[Row]], Any]:
    features = [column.feature for column in options.columns]
    if options.text:
        return lambda rows: [row[features[0]] for row in rows]
    if options.frame:
        from pandas import DataFrame

        names = [(column.column or column.feature, column.feature) for column in options.columns]
        return lambda rows: DataFrame({name: [row[feature] for row in rows] for name, feature in names})
    properties = features_schema.get("properties", {})
    numbers = all(_is_number(properties.get(feature, {})) for feature in features)
    kind: Any = numpy.float64 if numbers else object
    return lambda rows: numpy.array([[row[feature] for feature in features] for row in rows], dtype=kind)


def _is_number(schema: dict[str, Any]) -> bool:
    kinds = schema.get("type", "any")
    # A null among numbers becomes NaN, which is how estimators mean it.
    return set([kinds] if isinstance(kinds, str) else kinds) <= {"number", "integer", "boolean", "null"}

"""Estimators of scikit-learn: the common part of skops.py, joblib.py and mlflow.py.

The manifest maps features to the estimator's input:

    [options]
    columns = [                                # in the order of training
      { feature = "dep_hour" },
      { feature = "sepal_length_cm", column = "sepal length (cm)" },     # if the names differ
    ]
    frame = true                               # as a pandas DataFrame, for estimators that select columns by name
    # a column that was a pandas category in training, with all its values, in the order of training:
    #   { feature = "carrier", categories = ["AA", "UA"] }
    text = true                                # the one column is a list of texts, for vectorizers

`outputs` maps its methods to fields of the answer. The default is one field, `prediction`, from `predict`:

    outputs = [
      { field = "prediction", method = "predict" },
      { field = "probability", method = "predict_proba", column = 1, decimals = 4 },
      { field = "probabilities", method = "predict_proba", classes = true },   # {"setosa": 0.98, …}
    ]
"""

import os
import re
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

# Read by the OpenMP library when scikit-learn loads it. In a web server its threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy
from threadpoolctl import ThreadpoolController

from foretell.inference.package import MANIFEST, InvalidField, ModelPackage, PackageBroken

Row = dict[str, Any]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column of the estimator's input."""

    feature: str
    column: str = ""
    categories: list[Any] | None = None


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
    """A loaded estimator; the module's docstring describes `options`."""

    def __init__(self, estimator: Any, options: Options, features_schema: dict[str, Any]) -> None:
        self._methods = {output.method: getattr(estimator, output.method) for output in options.outputs}
        self._outputs = options.outputs
        self._classes = [str(value) for value in getattr(estimator, "classes_", ())]
        self._values = _values_for(options, features_schema, missing=None if _knows_none(estimator) else numpy.nan)
        # OpenMP's limit applies to the calling thread, so a limit that is set once here would not apply elsewhere.
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
        elif values.ndim == 2 and values.shape[1] == 1:
            # A single target that was a column in training is one value.
            values = values[:, 0]
        if output.decimals is not None:
            values = values.astype(numpy.float64).round(output.decimals)
        if output.classes:
            return [dict(zip(self._classes, row, strict=True)) for row in values.tolist()]
        plain: list[Any] = values.tolist()
        return plain


def model(package: ModelPackage, estimator: Any, options: Options) -> SklearnModel:
    """`estimator` as a runtime, after the options are checked against it and the schema. Raises `PackageBroken`."""
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
    trained = pandas_categories(estimator)
    for place, column in enumerate(options.columns):
        expected = present(trained[place]) if place in trained else None
        if column.categories != expected:
            raise PackageBroken(
                f"The {type(estimator).__name__} was trained with the categories {expected} in the column "
                f"{column.column or column.feature}, the options give {column.categories}",
                manifest,
                "Make the package anew: foretell models new",
            )
    if options.frame and find_spec("pandas") is None:
        raise PackageBroken("The model picks its columns by name, which needs pandas", manifest, "Install pandas.")
    if options.text and len(options.columns) != 1:
        raise PackageBroken("Texts are one column", manifest, "Name one in `columns`, or leave out `text`.")
    # A matrix in the order of training needs no names; scikit-learn would warn at every call.
    warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
    return SklearnModel(estimator, options, package.features_schema)


def steps(estimator: Any) -> list[Any]:
    """The steps of an estimator that a row passes."""
    if hasattr(estimator, "best_estimator_"):
        return steps(estimator.best_estimator_)
    return [step for _, step in estimator.steps] if hasattr(estimator, "steps") else [estimator]


def pandas_categories(estimator: Any) -> dict[int, list[Any]]:
    """The values of columns that were pandas categories in training, by position.

    LightGBM and scikit-learn's histogram boosting encode such a column by its pandas categories; in a plain matrix they
    would use a category's value as its code.
    """
    model = steps(estimator)[0]
    booster: Any = getattr(model, "booster_", None)
    if getattr(booster, "pandas_categorical", None):
        # LightGBM stores the positions only in the text of the model.
        found = re.search(r"\[categorical_feature: ([0-9,]+)\]", booster.model_to_string())
        places = [int(place) for place in found[1].split(",")] if found else []
        return dict(zip(places, map(list, booster.pandas_categorical), strict=True))
    if (
        getattr(model, "categorical_features", None) == "from_dtype"
        and getattr(model, "is_categorical_", None) is not None
    ):
        encoder = model._preprocessor.named_transformers_["encoder"]
        places = numpy.flatnonzero(model.is_categorical_).tolist()
        return dict(zip(places, (values.tolist() for values in encoder.categories_), strict=True))
    return {}


def present(values: Iterable[Any]) -> list[Any]:
    """Those of the values that are not missing: neither None nor NaN."""
    return [value for value in values if value is not None and value == value]


def _knows_none(part: Any) -> bool:
    """Whether an encoder in the estimator has seen None; others represent a missing value as NaN."""
    categories = getattr(part, "categories_", None)
    if isinstance(categories, list) and any(value is None for values in categories for value in values):
        return True
    inner = [entry[1] for name in _NESTED for entry in getattr(part, name, ())]
    inner += [getattr(part, name) for name in ("best_estimator_", "estimator_", "_preprocessor") if hasattr(part, name)]
    return any(_knows_none(each) for each in inner if not isinstance(each, str))


#: Attributes with nested estimators: lists of (name, part, …).
_NESTED = ("steps", "transformers_", "transformer_list")
#: Beyond this a float can't represent every whole number.
_LARGEST_EXACT = 2**53
_INT64 = numpy.iinfo(numpy.int64)


def _values_for(options: Options, features_schema: dict[str, Any], *, missing: Any) -> Callable[[list[Row]], Any]:
    """A function that converts rows to the estimator's input, with types that do not depend on the rows of the batch.

    `missing` is the estimator's value for a missing text.
    """
    features = [column.feature for column in options.columns]
    if options.text:
        return lambda rows: [row[features[0]] for row in rows]
    properties = features_schema.get("properties", {})
    kinds = [_kinds(properties.get(feature, {})) for feature in features]
    if options.frame:
        from pandas import DataFrame

        makers = [
            (column.column or column.feature, column.feature, _series_of(column, kind, missing))
            for column, kind in zip(options.columns, kinds, strict=True)
        ]
        return lambda rows: DataFrame({name: make([row[feature] for row in rows]) for name, feature, make in makers})
    whole = [
        feature for feature, kind in zip(features, kinds, strict=True) if "integer" in kind and "number" not in kind
    ]
    if all(kind <= _NUMBERS for kind in kinds):
        # A null among numbers becomes NaN, which estimators use for missing values.
        def matrix(rows: list[Row]) -> Any:
            for feature in whole:
                _check_whole(feature, [row[feature] for row in rows], _LARGEST_EXACT)
            return numpy.array([[row[feature] for feature in features] for row in rows], dtype=numpy.float64)

        return matrix

    def objects(rows: list[Row]) -> Any:
        return numpy.array(
            [[missing if row[feature] is None else row[feature] for feature in features] for row in rows], dtype=object
        )

    return objects


def _series_of(column: Column, kinds: frozenset[str], missing: Any) -> Callable[[list[Any]], Any]:
    """A function that makes a column of a frame from its values."""
    from pandas import Categorical, Series
    from pandas import __version__ as pandas_version

    if column.categories is not None:
        return lambda values: Categorical(values, categories=column.categories)
    if kinds == {"integer"}:

        def whole(values: list[Any]) -> Any:
            _check_whole(column.feature, values, _INT64.max)
            return Series(values, dtype="int64")

        return whole
    if kinds == {"boolean"}:
        return lambda values: Series(values, dtype="bool")
    if kinds <= _NUMBERS and "boolean" not in kinds:
        return lambda values: Series(values, dtype="float64")
    if kinds <= {"string", "null"} and missing is not None and int(pandas_version.partition(".")[0]) >= 3:
        return lambda values: Series(values, dtype="str")
    return lambda values: Series([missing if value is None else value for value in values], dtype="object")


def _check_whole(feature: str, values: list[Any], largest: int) -> None:
    """Refuse whole numbers that a float can't represent."""
    if any(value is not None and not -largest <= value <= largest for value in values):
        raise InvalidField(feature, f"must be between {-largest} and {largest}")


_NUMBERS = frozenset({"number", "integer", "boolean", "null"})


def _kinds(schema: dict[str, Any]) -> frozenset[str]:
    """The JSON types of a field."""
    kinds = schema.get("type", "any")
    return frozenset([kinds] if isinstance(kinds, str) else kinds)

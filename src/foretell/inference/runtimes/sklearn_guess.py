"""Guesses input and output of a package from a trained estimator."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sklearn.base import OneToOneFeatureMixin, is_classifier, is_clusterer, is_outlier_detector
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.impute import SimpleImputer

from foretell.inference.guessing import (
    CannotGuess,
    Field,
    Guess,
    field_names,
    numbered,
    object_schema,
    title_and_unit,
)
from foretell.inference.runtimes.sklearn import pandas_categories, present, steps

#: A list of choices with more values would not be useful.
_MOST_CHOICES = 500
_DECIMALS = 4
#: Whole numbers that a float can represent exactly.
_EXACT = {"minimum": -(2**53), "maximum": 2**53}


def guess_estimator(estimator: Any, files: dict[str, Path]) -> Guess:
    """The guess for an estimator; the first of `files` is the artifact. Raises `CannotGuess`."""
    if not hasattr(estimator, "predict"):
        raise CannotGuess(f"A {type(estimator).__name__} has no method `predict`. Store the whole pipeline.")
    remarks: list[str] = []
    fields, options, nullable = _features(estimator, remarks)
    outputs, answers = _answers(estimator)
    typical = _typical(estimator, fields)
    return Guess(
        features_schema=object_schema("Features", fields),
        output_schema=object_schema("Prediction", answers),
        options={**options, "outputs": outputs},
        files=files,
        artifact=next(iter(files)),
        example=("features", typical) if typical else None,
        nullable=tuple(nullable),
        remarks=tuple(remarks),
    )


def _typical(estimator: Any, fields: list[Field]) -> dict[str, Any] | None:
    """The means of the training data, if the model begins with a scaler that has them."""
    means = getattr(steps(estimator)[0], "mean_", None)
    if means is None or len(means) != len(fields):
        return None
    return {each.name: round(mean, 3) for each, mean in zip(fields, means.tolist(), strict=True)}


def _features(estimator: Any, remarks: list[str]) -> tuple[list[Field], dict[str, Any], list[str]]:
    """The fields of the features, the options, and the fields that may be null."""
    if _takes_texts(estimator):
        text = Field("text", "string", bounds={"minLength": 1, "maxLength": 10_000})
        return [text], {"columns": [{"feature": "text"}], "text": True}, []
    named = getattr(estimator, "feature_names_in_", None)
    if named is not None:
        columns = [str(name) for name in named]
    else:
        width = getattr(estimator, "n_features_in_", 0)
        if not width:
            raise CannotGuess(_why_unknown(estimator))
        columns = numbered(width)
        remarks.append(
            f"The model was trained without names of columns, so its features are called {columns[0]} to "
            f"{columns[-1]}. Better names go into features.schema.json and into `columns` of model.toml."
        )
    names = field_names(columns)
    special = dict(_special(estimator, columns))
    fields = []
    for column, name in zip(columns, names, strict=True):
        known = special.get(column, Known("number"))
        title, unit = title_and_unit(column)
        bounds = _EXACT if known.kind == "integer" and not known.choices else {}
        fields.append(Field(name, known.kind, title=title, choices=known.choices, unit=unit, bounds=bounds))
    trained = pandas_categories(estimator)
    options: dict[str, Any] = {
        "columns": [
            {
                "feature": name,
                **({} if name == column else {"column": column}),
                **({"categories": present(trained[place])} if place in trained else {}),
            }
            for place, (column, name) in enumerate(zip(columns, names, strict=True))
        ]
    }
    if named is not None and (trained or any(isinstance(step, ColumnTransformer) for step in steps(estimator))):
        options["frame"] = True
    nullable = [name for column, name in zip(columns, names, strict=True) if special.get(column, Known("")).missing]
    return fields, options, nullable


def _why_unknown(estimator: Any) -> str:
    kind = type(estimator)
    if kind.__module__.startswith("sklearn."):
        return f"The {kind.__name__} does not say what it takes. Has it been trained?"
    return (
        f"The {kind.__name__} of {kind.__module__.partition('.')[0]} does not say how many columns it takes "
        "(n_features_in_), as estimators of scikit-learn do. Export it as ONNX, or wrap it in a Python class: "
        "foretell models new model.py"
    )


def _takes_texts(estimator: Any) -> bool:
    first = steps(estimator)[0]
    return isinstance(first, CountVectorizer | HashingVectorizer)


class Known(NamedTuple):
    """Facts about a column in a model: its JSON type, the values in training, and whether some were missing."""

    kind: str
    choices: Sequence[Any] = ()
    missing: bool = False


def _special(estimator: Any, columns: Sequence[str]) -> Iterator[tuple[str, Known]]:
    """The columns that are not plain numbers, by name."""
    for place, values in pandas_categories(estimator).items():
        yield columns[place], _choice(values)
    for step in steps(estimator):
        if isinstance(step, ColumnTransformer):
            for _, transformer, chosen in step.transformers_:
                if isinstance(chosen, str) and not isinstance(transformer, str):
                    yield chosen, Known("string")
                elif not isinstance(transformer, str):
                    yield from _special(transformer, _chosen(chosen, columns))
            return
        categories = getattr(step, "categories_", None)
        if isinstance(categories, list) and len(categories) == len(columns):
            for column, values in zip(columns, categories, strict=True):
                yield column, _choice(values.tolist())
        if not isinstance(step, OneToOneFeatureMixin | SimpleImputer):
            return


def _chosen(chosen: Any, columns: Sequence[str]) -> list[str]:
    """The columns that a ColumnTransformer passes to one of its parts: names, positions, a slice or a mask."""
    if isinstance(chosen, slice):
        return list(columns[chosen])
    picked = list(chosen)
    if picked and all(isinstance(each, bool) for each in picked):
        return [column for column, taken in zip(columns, picked, strict=True) if taken]
    return [each if isinstance(each, str) else columns[int(each)] for each in picked]


def _choice(values: list[Any]) -> Known:
    """The facts from the values of one category, including a missing one. Raises `CannotGuess`."""
    known = present(values)
    strange = sorted({type(value).__name__ for value in known if not isinstance(value, bool | int | float | str)})
    if strange:
        raise CannotGuess(f"A column has categories of the type {', '.join(strange)}, which JSON does not have.")
    choices = known if len(known) <= _MOST_CHOICES else ()
    return Known(_kind(known), choices, missing=len(known) < len(values))


def _kind(values: Sequence[Any]) -> str:
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number")):
        if all(type(value) is kind for value in values):
            return name
    return "number" if all(isinstance(value, int | float) for value in values) else "string"


def _answers(estimator: Any) -> tuple[list[dict[str, Any]], list[Field]]:
    """`outputs` of the options, and the fields of the answer."""
    outputs: list[dict[str, Any]] = [{"field": "prediction", "method": "predict"}]
    classes = getattr(estimator, "classes_", None)
    if is_classifier(estimator) and classes is not None and not isinstance(classes, list):
        return _class_answers(estimator, classes.tolist(), outputs)
    if is_clusterer(estimator) or is_outlier_detector(estimator):
        return outputs, [Field("prediction", "integer")]
    if getattr(estimator, "n_outputs_", 1) > 1 or isinstance(classes, list):
        return outputs, [Field("prediction", "array")]
    return outputs, [Field("prediction", "number")]


def _class_answers(
    estimator: Any, classes: list[Any], outputs: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[Field]]:
    answers = [Field("prediction", _kind(classes), choices=classes if len(classes) <= _MOST_CHOICES else ())]
    if not hasattr(estimator, "predict_proba"):
        return outputs, answers
    probability = {"minimum": 0, "maximum": 1}
    if len(classes) == 2:
        outputs.append({"field": "probability", "method": "predict_proba", "column": 1, "decimals": _DECIMALS})
        answers.append(Field("probability", "number", title=f"Probability of {classes[1]}", bounds=probability))
    else:
        outputs.append({"field": "probabilities", "method": "predict_proba", "classes": True, "decimals": _DECIMALS})
        each = {str(value): {"type": "number", **probability} for value in classes}
        bounds = {"additionalProperties": False, "required": list(each), "properties": each}
        answers.append(Field("probabilities", "object", bounds=bounds))
    return outputs, answers

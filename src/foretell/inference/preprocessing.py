"""Turns raw input into features, with the function of a package."""

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from foretell.contracts.messages import Failure
from foretell.inference.code import load_code
from foretell.inference.package import InvalidField, ModelPackage
from foretell.inference.schema import sentence

log = structlog.get_logger(__name__)

Row = dict[str, Any]
#: Features or a failure for each row.
Preprocessing = Callable[[list[Row]], list[Row | Failure]]


def load_preprocessing(package: ModelPackage) -> Preprocessing:
    """The preprocessing of `package`, which runs the package's code. Raises `PackageBroken`.

    It takes rows that match the input schema, and returns for each of them features that match their schema, or a
    `Failure("invalid_input", ...)` that names the field. It never raises for a row.
    """
    entry = package.manifest.preprocessing
    if entry is None:
        return lambda rows: list(rows)
    function = load_code(package, entry)
    if isinstance(function, type):
        from foretell.inference import python_class

        function = python_class.preprocessing(package, function)
    elif package.manifest.preprocessing_takes == "row":
        return lambda rows: [_checked(package, _one(package, function, row)) for row in rows]
    return lambda rows: [_checked(package, features) for features in _many(package, function, rows)]


def _one(package: ModelPackage, function: Callable[[Row], Row], row: Row) -> Row | Failure:
    try:
        return function(row)
    except InvalidField as error:
        return Failure("invalid_input", f"{error}.")
    except Exception as error:
        return _unexplained(package, error)


def _many(
    package: ModelPackage, function: Callable[[list[Row]], Sequence[Row | InvalidField]], rows: list[Row]
) -> list[Row | Failure]:
    try:
        answers = function(rows)
        if len(answers) != len(rows):
            raise RuntimeError(f"{len(rows)} rows went in and {len(answers)} came out")
    except Exception as error:
        if len(rows) == 1:
            if isinstance(error, InvalidField):
                return [Failure("invalid_input", f"{error}.")]
            return [_unexplained(package, error)]
        # One row at a time, so that only the bad one fails.
        return [_many(package, function, [row])[0] for row in rows]
    return [
        Failure("invalid_input", f"{answer}.") if isinstance(answer, InvalidField) else answer for answer in answers
    ]


def _unexplained(package: ModelPackage, error: Exception) -> Failure:
    """A failure without the error's text, which may contain values of the input."""
    log.warning("preprocessing_failed", model=package.name, version=package.version, error_type=type(error).__name__)
    return Failure("invalid_input", "The preprocessing of this model cannot use this input.")


def _checked(package: ModelPackage, features: Row | Failure) -> Row | Failure:
    if type(features) is Failure or package.features_validator.is_valid(features):
        return features
    problems = package.features_validator.problems(features)
    return Failure("invalid_input", f"After preprocessing: {sentence(problems)}")

"""Runs a model on its training rows, to make its reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec

from foretell.contracts.messages import Failure, Stage
from foretell.inference.distribution import describe, flattened
from foretell.inference.engine import Engine
from foretell.inference.package import ModelPackage, PackageBroken
from foretell.inference.reference import Field, Numbers, Reference
from foretell.inference.registry import Registry
from foretell.inference.runtimes import Runtime
from foretell.inference.schema import sentence
from foretell.inference.stability import usual_psi

Row = dict[str, Any]

#: More rows do not improve a distribution.
MOST_ROWS = 100_000
#: With single days, each day needs some hundreds of rows.
MOST_ROWS_OF_DAYS = 400_000


@dataclass(frozen=True, slots=True)
class Measured:
    """A reference (None if no row can be used), and statistics of the rows."""

    reference: Reference | None
    refused: int
    first_problem: str
    #: Why the model was not run, if it was not.
    without_outputs: str
    #: Fields that can't be counted.
    left_out: list[str]


def measure(
    package: ModelPackage,
    rows: Sequence[Row],
    stage: Stage,
    load: Callable[[ModelPackage], Runtime],
    days: Sequence[date | None] | None = None,
) -> Measured:
    """The reference of these rows, raw input or features, with the model's answers if it can be loaded.

    With `days`, the day of each row, the reference gets the usual difference of single days. Raises `PackageBroken`
    if the preprocessing can't be loaded.
    """
    engine = Engine(Registry([package]), load=load)
    features: list[Row] = []
    feature_days: list[date | None] = []
    problems: list[str] = []
    outcomes = engine.preprocess(package, rows) if stage == "input" else _checked(package, rows)
    for outcome, day in zip(outcomes, days or [None] * len(rows), strict=True):
        if isinstance(outcome, Failure):
            problems.append(outcome.message)
        else:
            features.append(outcome)
            feature_days.append(day)
    answers: list[Row | None] = []
    why = ""
    try:
        engine.warm(package.name)
    except PackageBroken as error:
        why = error.message
    else:
        answers = [
            answer if isinstance(answer, dict) else None for answer in engine.predict(package, features, "features")
        ]
    outputs = [answer for answer in answers if answer is not None]
    reference, left_out = describe(features, outputs) if features else (None, [])
    if reference is not None and days is not None:
        output_days = [day for answer, day in zip(answers, feature_days, strict=False) if answer is not None]
        reference = msgspec.structs.replace(
            reference,
            features=_with_usual(reference.features, features, feature_days),
            outputs=_with_usual(reference.outputs, outputs, output_days),
        )
    return Measured(reference, len(problems), problems[0] if problems else "", why, left_out)


def _with_usual(fields: Mapping[str, Field], rows: Sequence[Row], days: Sequence[date | None]) -> dict[str, Field]:
    """The fields, each with its usual difference of single days."""
    flat = [dict(flattened(row)) for row in rows]
    return {
        name: msgspec.structs.replace(field, usual_psi=usual_psi(field, (row.get(name) for row in flat), days))
        for name, field in fields.items()
    }


def _checked(package: ModelPackage, rows: Sequence[Row]) -> list[Row | Failure]:
    validator = package.features_validator
    return [
        row if validator.is_valid(row) else Failure("invalid_input", sentence(validator.problems(row))) for row in rows
    ]


def bins_of(field: Field) -> str:
    """A description of a field of a reference."""
    missing = f", missing in {field.missing} rows" if field.missing else ""
    if field.usual_psi:
        missing += f"; PSI of single days usually up to {field.usual_psi:.2g}"
    if isinstance(field, Numbers):
        what = "lengths" if field.of else "numbers"
        if field.std == 0:
            return f"{what}, all {field.mean:g}{missing}"
        return f"{what} from {field.edges[0]:g} to {field.edges[-1]:g} in {len(field.counts)} bins{missing}"
    others = f" and {field.other} rows of others" if field.other else ""
    return f"{len(field.counts)} categories{others}{missing}"

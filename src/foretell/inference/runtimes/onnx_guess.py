"""Reads off a graph in ONNX what it takes and what it answers."""

from pathlib import Path
from typing import Any

from foretell.inference.guessing import CannotGuess, Field, Guess, object_schema
from foretell.inference.runtimes import NOTHING_MORE, Permissions
from foretell.inference.runtimes.onnx import open_session

_KINDS = {
    "tensor(string)": "string",
    "tensor(float)": "number",
    "tensor(double)": "number",
    "tensor(int32)": "integer",
    "tensor(int64)": "integer",
    "tensor(bool)": "boolean",
}
#: What converters call their outputs, and what we call them.
_FIELDS = {
    "label": "prediction",
    "output_label": "prediction",
    "variable": "prediction",
    "output_probability": "probabilities",
}
_DECIMALS = 4


def guess(file: Path, _: Permissions = NOTHING_MORE) -> Guess:
    """What a package of this graph looks like. Raises `CannotGuess`."""
    try:
        session = open_session(file.read_bytes())
    except Exception as error:  # onnxruntime's errors have no ancestor of their own
        raise CannotGuess(f"onnxruntime cannot load {file}: {error}.") from error
    remarks: list[str] = []
    fields, options = _features(session.get_inputs(), remarks)
    answers, outputs = _answers(session.get_outputs())
    return Guess(
        features_schema=object_schema("Features", fields),
        output_schema=object_schema("Prediction", answers),
        options={**options, "outputs": outputs},
        files={"model.onnx": file},
        artifact="model.onnx",
        remarks=tuple(remarks),
    )


def _features(inputs: list[Any], remarks: list[str]) -> tuple[list[Field], dict[str, Any]]:
    width = _width(inputs[0]) if len(inputs) == 1 else 1
    if width > 1:
        if inputs[0].type != "tensor(float)":
            raise CannotGuess(f"The matrix {inputs[0].name} is {inputs[0].type}. Export it as tensor(float).")
        names = [f"x{place}" for place in range(1, width + 1)]
        remarks.append(
            f"The graph takes a matrix without names, so its features are called {names[0]} to {names[-1]}. Better "
            "names go into features.schema.json and into `columns` of model.toml."
        )
        columns = [{"feature": name} for name in names]
        return [Field(name, "number") for name in names], {"matrix": inputs[0].name, "columns": columns}
    for entry in inputs:
        if entry.type not in _KINDS or _width(entry) != 1:
            raise CannotGuess(
                f"The input {entry.name} is {entry.type} of shape {entry.shape}. A package takes one matrix of floats, "
                "or inputs of shape (rows, 1)."
            )
    fields = [Field(entry.name, _KINDS[entry.type]) for entry in inputs]
    return fields, {"columns": [{"feature": entry.name} for entry in inputs]}


def _answers(outputs: list[Any]) -> tuple[list[Field], list[dict[str, Any]]]:
    fields: list[Field] = []
    options: list[dict[str, Any]] = []
    for entry in outputs:
        kind = _KINDS.get(entry.type)
        if kind is None:
            raise CannotGuess(
                f"The output {entry.name} is {entry.type}. Convert the model with zipmap=False, so that it is a tensor."
            )
        name = _FIELDS.get(entry.name, entry.name)
        option: dict[str, Any] = {"field": name, "tensor": entry.name}
        if name == "probabilities":
            option["decimals"] = _DECIMALS
        many = len(entry.shape) > 1 and _width(entry) != 1
        fields.append(Field(name, "array", bounds={"items": {"type": kind}}) if many else Field(name, kind))
        options.append(option)
    return fields, options


def _width(entry: Any) -> int:
    """Columns of a tensor whose rows are rows: 1 for shapes (n,) and (n, 1); 0 when the graph does not say."""
    if len(entry.shape) < 2:
        return 1
    if len(entry.shape) > 2:
        raise CannotGuess(f"{entry.name} has the shape {entry.shape}. A package takes rows of single values.")
    return entry.shape[1] if isinstance(entry.shape[1], int) else 0

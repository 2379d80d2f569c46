"""Guesses input and output of a package from an ONNX graph."""

from pathlib import Path
from typing import Any

from foretell.inference.guessing import CannotGuess, Field, Guess, inside, numbered, object_schema, title_and_unit
from foretell.inference.runtimes import NOTHING_MORE, Permissions
from foretell.inference.runtimes.onnx import fixed_rows, integer_bounds, open_session
from foretell.inference.runtimes.onnx_files import external_files

_KINDS = {
    "tensor(string)": "string",
    "tensor(bool)": "boolean",
    "tensor(float16)": "number",
    "tensor(float)": "number",
    "tensor(double)": "number",
    **dict.fromkeys((f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)), "integer"),
}
#: Names of outputs by converters, and our names for them.
_FIELDS = {
    "label": "prediction",
    "output_label": "prediction",
    "variable": "prediction",
    "output_probability": "probabilities",
}
_DECIMALS = 4


def guess(file: Path, _: Permissions = NOTHING_MORE) -> Guess:
    """The guess for a package of this graph. Raises `CannotGuess`."""
    content = file.read_bytes()
    try:
        beside = {name: inside(file.parent, name) for name in external_files(content)}
        session = open_session(content, {name: each.read_bytes() for name, each in beside.items()})
    except FileNotFoundError as error:
        raise CannotGuess(
            f"{file} keeps its weights in {error.filename}, which is not there. Copy that file, too."
        ) from error
    except CannotGuess:
        raise
    except Exception as error:  # onnxruntime's errors have no ancestor of their own
        raise CannotGuess(f"onnxruntime cannot load {file}: {error}.") from error
    remarks: list[str] = []
    fields, options = _features(session.get_inputs(), remarks)
    answers, outputs = _answers(session.get_outputs())
    return Guess(
        features_schema=object_schema("Features", fields),
        output_schema=object_schema("Prediction", answers),
        options={**options, "outputs": outputs},
        files={"model.onnx": file, **beside},
        artifact="model.onnx",
        max_batch=min(fixed_rows(session) or 64, 64),
        remarks=tuple(remarks),
    )


def _features(inputs: list[Any], remarks: list[str]) -> tuple[list[Field], dict[str, Any]]:
    width = _width(inputs[0]) if len(inputs) == 1 else 1
    if width > 1:
        if inputs[0].type != "tensor(float)":
            raise CannotGuess(f"The matrix {inputs[0].name} is {inputs[0].type}. Export it as tensor(float).")
        names = numbered(width)
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
                f"or inputs of shape (rows, 1) or (rows,) and one of the types {', '.join(_KINDS)}."
            )
    fields = [_field(entry) for entry in inputs]
    return fields, {"columns": [{"feature": entry.name} for entry in inputs]}


def _field(entry: Any) -> Field:
    title, unit = title_and_unit(entry.name)
    return Field(entry.name, _KINDS[entry.type], title=title, unit=unit, bounds=_bounds(entry.type))


def _bounds(kind: str) -> dict[str, Any]:
    bounds = integer_bounds(kind)
    return {} if bounds is None else {"minimum": bounds[0], "maximum": bounds[1]}


def _answers(outputs: list[Any]) -> tuple[list[Field], list[dict[str, Any]]]:
    fields: list[Field] = []
    options: list[dict[str, Any]] = []
    for entry in outputs:
        kind = _KINDS.get(entry.type)
        if kind is None:
            remedy = (
                "Convert the model with zipmap=False, so that it is a tensor."
                if entry.type.startswith("seq(map(")
                else f"A package answers with tensors of the types {', '.join(_KINDS)}: cast it to one of them."
            )
            raise CannotGuess(f"The output {entry.name} is {entry.type}. {remedy}")
        name = _FIELDS.get(entry.name, entry.name)
        option: dict[str, Any] = {"field": name, "tensor": entry.name}
        if name == "probabilities":
            option["decimals"] = _DECIMALS
        many = len(entry.shape) > 1 and _width(entry) != 1
        fields.append(Field(name, "array", bounds={"items": {"type": kind}}) if many else Field(name, kind))
        options.append(option)
    return fields, options


def _width(entry: Any) -> int:
    """The number of columns of a tensor: 1 for shapes (n,) and (n, 1); 0 if unknown."""
    if len(entry.shape) < 2:
        return 1
    if len(entry.shape) > 2:
        raise CannotGuess(f"{entry.name} has the shape {entry.shape}. A package takes rows of single values.")
    return entry.shape[1] if isinstance(entry.shape[1], int) else 0

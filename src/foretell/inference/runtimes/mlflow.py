"""Models in MLflow's format, a folder with a file `MLmodel`, read without MLflow itself.

The package contains that folder; `artifact` is the file of the model in it ("mlflow/model.onnx"). Flavours: onnx, and
sklearn stored by skops or, if the operator allows that file, as a pickle (see joblib.py). `options` are those of the
runtime onnx or of sklearn.py; the model's input is checked against MLflow's signature.
"""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from foretell.contracts.messages import Stage
from foretell.inference.guessing import MOST_COLUMNS, CannotGuess, Guess, inside
from foretell.inference.package import ModelPackage, PackageBroken, read_artifact, read_file, read_options
from foretell.inference.runtimes import NOTHING_MORE, Permissions, Runtime
from foretell.inference.small_files import Unfit, read_small

#: The folder for MLflow's files in a package that `foretell models new` makes.
FOLDER = "mlflow"
_MLMODEL = "MLmodel"
#: MLflow's types of columns, and NumPy's types of tensors, as JSON types.
_KINDS = {"boolean": "boolean", "integer": "integer", "long": "integer", "float": "number", "double": "number"}
_KINDS |= {"string": "string"}
_TENSOR_KINDS = {"bool": "boolean", "str": "string", "object": "string"}
#: An MLmodel file has a few kilobytes.
_MOST_BYTES = 1024 * 1024


class _Unreadable(Exception):
    """The problem of the MLmodel file, and a remedy: two sentences."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy


class _Model:
    """The parts of an MLmodel file that we need."""

    def __init__(self, file: Path, content: bytes) -> None:
        """`content` was read from `file`. Raises `_Unreadable`."""
        if len(content) > _MOST_BYTES:
            raise _Unreadable(f"The MLmodel file has {len(content)} bytes", f"At most {_MOST_BYTES} are read.")
        try:
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, yaml.SafeLoader)):
                # A few lines of aliases can expand to gigabytes.
                raise yaml.YAMLError("it has aliases (*name), which MLflow does not write")
            said = yaml.safe_load(content)
            flavors = said["flavors"]
            self.flavor = next(name for name in ("onnx", "sklearn") if name in flavors)
            about = flavors[self.flavor]
            self.data = _text(about["data" if self.flavor == "onnx" else "pickled_model"])
            self.is_skops = about.get("serialization_format") == "skops"
            self.inputs = _columns((said.get("signature") or {}).get("inputs"))
            self.example = (said.get("saved_input_example_info") or {}).get("artifact_path")
        except StopIteration:
            raise _Unreadable(
                f"Of this model's flavours {sorted(flavors)} none is onnx or sklearn",
                "Log it with mlflow.onnx or mlflow.sklearn.",
            ) from None
        except (UnicodeDecodeError, yaml.YAMLError, msgspec.DecodeError, LookupError, TypeError) as error:
            raise _Unreadable(
                f"The MLmodel file cannot be read: {type(error).__name__}: {error}", "Copy it from MLflow again."
            ) from error
        except RecursionError as error:
            raise _Unreadable("The MLmodel file is nested too deeply", "Copy it from MLflow again.") from error
        self.file = file


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a path is a text, not a {type(value).__name__}")
    return value


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a signature. `kind` is a JSON type, "" if MLflow's type has no counterpart."""

    name: str
    kind: str
    #: MLflow's own name of the type.
    stated: str
    required: bool = True


def _columns(signature: str | None) -> list[_Column]:
    """The columns of a signature; tensors of k columns become x1 to xk."""
    columns: list[_Column] = []
    for place, column in enumerate(msgspec.json.decode(signature) if signature else (), 1):
        stated = column["type"]
        required = column.get("required", True) is not False
        if stated == "tensor":
            dtype = column["tensor-spec"]["dtype"]
            kind = dtype.rstrip("0123456789")
            kind = {"float": "number", "int": "integer", "uint": "integer"}.get(kind, _TENSOR_KINDS.get(kind, ""))
            shape = column["tensor-spec"]["shape"]
            width = shape[1] if len(shape) == 2 else 1
            if not isinstance(width, int) or width > MOST_COLUMNS - len(columns):
                raise TypeError(f"a signature has at most {MOST_COLUMNS} columns, not {shape}")
            if column.get("name") and width == 1:
                columns.append(_Column(column["name"], kind, dtype, required))
            else:
                columns += [_Column(f"x{number}", kind, dtype, required) for number in range(1, width + 1)]
        else:
            name = str(column.get("name") or f"x{place}")
            columns.append(_Column(name, _KINDS.get(stated, ""), str(stated), required))
    return columns


def load(package: ModelPackage, permissions: Permissions = NOTHING_MORE) -> Runtime:
    """Check the artifact's hash and the signature, and load it. Raises `PackageBroken`."""
    file = package.artifact_path.parent / _MLMODEL
    try:
        described = _Model(file, _described(package, file))
    except _Unreadable as error:
        raise PackageBroken(error.what, file, error.remedy) from error
    if package.artifact_path.name != Path(described.data).name:
        raise PackageBroken(
            f"The artifact is not the file that MLmodel names, {described.data}",
            package.artifact_path,
            "Correct `artifact` in model.toml.",
        )
    _check_signature(package, described)
    if described.flavor == "onnx":
        from foretell.inference.runtimes import onnx

        return onnx.load(package, permissions)
    return _load_sklearn(package, described, permissions)


def _described(package: ModelPackage, file: Path) -> bytes:
    """The MLmodel file of a package. Raises `PackageBroken`."""
    name = file.relative_to(package.path).as_posix()
    if name in package.manifest.files:
        return read_file(package, name)
    # An older package, from before hashes of other files than the artifact were stored.
    try:
        return read_small(file)
    except Unfit as error:
        raise PackageBroken(error.what, file, error.remedy) from error
    except OSError as error:
        raise PackageBroken(
            f"The MLmodel file beside the artifact cannot be read: {error.strerror}",
            file,
            "Copy MLflow's whole folder.",
        ) from error


def _load_sklearn(package: ModelPackage, described: _Model, permissions: Permissions) -> Runtime:
    from foretell.inference.runtimes import joblib, sklearn, skops

    options = read_options(package, sklearn.Options)
    content = read_artifact(package)
    if described.is_skops:
        estimator = skops.put_together(package, content, options.trusted)
    else:
        # MLflow's default is cloudpickle, whose files the standard library reads.
        estimator = joblib.unpickle(package, content, permissions, pickle.load)
    return sklearn.model(package, estimator, options)


def _check_signature(package: ModelPackage, described: _Model) -> None:
    """Refuse a package whose columns differ from the signature of the logged model."""
    options = package.manifest.options
    given = [column.get("column") or column.get("feature") for column in options.get("columns", ())]
    wanted = [column.name for column in described.inputs]
    if wanted and given and given != wanted:
        raise PackageBroken(
            f"The signature takes {wanted}, the options give {given}",
            described.file,
            "Correct `columns` under [options] in model.toml.",
        )


def guess(folder: Path, permissions: Permissions = NOTHING_MORE) -> Guess:
    """The guess for a package of the model in MLflow's `folder`. Raises `CannotGuess`."""
    file = inside(folder, _MLMODEL)
    try:
        described = _Model(file, read_small(file))
    except (_Unreadable, Unfit) as error:
        raise CannotGuess(f"{error.what} ({file}). {error.remedy}") from error
    data = inside(folder, described.data)
    if not data.is_file():
        raise CannotGuess(f"{file} names the model {described.data}, which is not there. Copy MLflow's whole folder.")
    if described.flavor == "onnx":
        from foretell.inference.runtimes import onnx_guess

        made = onnx_guess.guess(data, permissions)
    elif described.is_skops:
        from foretell.inference.runtimes import skops

        made = skops.guess(data, permissions)
    else:
        from foretell.inference.runtimes import joblib

        made = joblib.guess(data, permissions)
    # Weights are beside the graph, under the names in the graph.
    beside = {f"{FOLDER}/{name}": each for name, each in made.files.items() if name != made.artifact}
    artifact = f"{FOLDER}/{data.name}"
    files = {artifact: data, f"{FOLDER}/{_MLMODEL}": described.file, **beside}
    made = replace(made, files=files, artifact=artifact)
    return replace(_with_signature(made, described), example=_example(folder, described, made))


def _with_signature(made: Guess, described: _Model) -> Guess:
    """The guess with types from the signature, if the model itself has none. Raises `CannotGuess`."""
    strange = [f"{column.name} ({column.stated})" for column in described.inputs if not column.kind]
    if strange:
        raise CannotGuess(
            f"The signature has columns of types that a package can't take: {', '.join(strange)}. Log the model with "
            "numbers, texts and truth values, or wrap it in a Python class: foretell models new model.py"
        )
    names = [column["feature"] for column in made.options.get("columns", ())]
    if len(names) != len(described.inputs):
        return made
    properties = dict(made.features_schema["properties"])
    optional = []
    for name, column in zip(names, described.inputs, strict=True):
        if "enum" not in properties[name]:
            properties[name] = {**properties[name], "type": column.kind}
        if not column.required:
            optional.append(name)
    schema = {**made.features_schema, "properties": properties}
    return replace(made, features_schema=schema, nullable=tuple(optional))


def _example(folder: Path, described: _Model, made: Guess) -> tuple[Stage, dict[str, Any]] | None:
    """The first row of the example that was logged with the model, if it is a table."""
    if not described.example:
        return None
    try:
        table = msgspec.json.decode(read_small(inside(folder, _text(described.example))))
        columns = [column.get("column") or column["feature"] for column in made.options["columns"]]
        names = [column["feature"] for column in made.options["columns"]]
        rows = table["data"] if isinstance(table, dict) else table
        row = dict(zip(table.get("columns", columns), rows[0], strict=True)) if isinstance(table, dict) else rows[0]
        return "features", {name: row[column] for name, column in zip(names, columns, strict=True)}
    except (OSError, Unfit, msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError, IndexError):
        return None

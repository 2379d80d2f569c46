"""Models as MLflow stores them, in a folder with a file `MLmodel`, read without MLflow itself.

The package holds that folder; `artifact` names the file of the model in it ("mlflow/model.onnx"). Flavours: onnx, and
sklearn stored by skops or, where the operator allows that file, as a pickle (see joblib.py). `options` are those of the
runtime onnx or of sklearn.py; what the model takes is checked against the signature that MLflow wrote down.
"""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from foretell.contracts.messages import Stage
from foretell.inference.guessing import CannotGuess, Guess
from foretell.inference.package import ModelPackage, PackageBroken, read_artifact, read_options
from foretell.inference.runtimes import NOTHING_MORE, Permissions, Runtime

#: Where MLflow's folder goes in a package that `foretell models new` makes.
FOLDER = "mlflow"
_MLMODEL = "MLmodel"
#: MLflow's types of columns, and NumPy's of tensors, as those of JSON.
_KINDS = {"boolean": "boolean", "integer": "integer", "long": "integer", "float": "number", "double": "number"}
_KINDS |= {"string": "string", "bool": "boolean", "str": "string", "object": "string"}


class _Unreadable(Exception):
    """What is wrong with the MLmodel file, and what to do: two sentences."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy


class _Model:
    """What an MLmodel file says, as far as we need it."""

    def __init__(self, file: Path) -> None:
        """Raises `_Unreadable`."""
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            flavors = content["flavors"]
            self.flavor = next(name for name in ("onnx", "sklearn") if name in flavors)
            about = flavors[self.flavor]
            self.data = str(about["data" if self.flavor == "onnx" else "pickled_model"])
            self.is_skops = about.get("serialization_format") == "skops"
            self.inputs = _columns((content.get("signature") or {}).get("inputs"))
            self.outputs = _columns((content.get("signature") or {}).get("outputs"))
            self.example = (content.get("saved_input_example_info") or {}).get("artifact_path")
        except StopIteration:
            raise _Unreadable(
                f"Of this model's flavours {sorted(flavors)} none is onnx or sklearn",
                "Log it with mlflow.onnx or mlflow.sklearn.",
            ) from None
        except FileNotFoundError:
            raise _Unreadable("There is no file MLmodel beside the artifact", "Copy MLflow's whole folder.") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.DecodeError, LookupError, TypeError) as error:
            raise _Unreadable(
                f"The MLmodel file cannot be read: {type(error).__name__}: {error}", "Copy it from MLflow again."
            ) from error
        self.file = file


def _columns(signature: str | None) -> list[tuple[str, str]]:
    """Name and type of JSON of each column of a signature; tensors of k columns become x1 to xk."""
    columns: list[tuple[str, str]] = []
    for place, column in enumerate(msgspec.json.decode(signature) if signature else (), 1):
        if column["type"] == "tensor":
            kind = column["tensor-spec"]["dtype"].rstrip("0123456789")
            kind = {"float": "number", "int": "integer", "uint": "integer"}.get(kind, _KINDS.get(kind, ""))
            shape = column["tensor-spec"]["shape"]
            width = shape[1] if len(shape) == 2 else 1
            if column.get("name") and width == 1:
                columns.append((column["name"], kind))
            else:
                columns += [(f"x{number}", kind) for number in range(1, width + 1)]
        else:
            columns.append((str(column.get("name") or f"x{place}"), _KINDS.get(column["type"], "")))
    return columns


def load(package: ModelPackage, permissions: Permissions = NOTHING_MORE) -> Runtime:
    """Check the artifact's hash and the signature, and load it. Raises `PackageBroken`."""
    try:
        described = _Model(package.artifact_path.parent / _MLMODEL)
    except _Unreadable as error:
        raise PackageBroken(error.what, package.artifact_path.parent / _MLMODEL, error.remedy) from error
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
    """Refuse a package that gives the model fewer columns, or others, than it was logged with."""
    options = package.manifest.options
    given = [column.get("column") or column.get("feature") for column in options.get("columns", ())]
    wanted = [name for name, _ in described.inputs]
    if wanted and given and given != wanted:
        raise PackageBroken(
            f"The signature takes {wanted}, the options give {given}",
            described.file,
            "Correct `columns` under [options] in model.toml.",
        )


def guess(folder: Path, permissions: Permissions = NOTHING_MORE) -> Guess:
    """What a package of the model in MLflow's `folder` looks like. Raises `CannotGuess`."""
    try:
        described = _Model(folder / _MLMODEL)
    except _Unreadable as error:
        raise CannotGuess(f"{error.what} ({folder / _MLMODEL}). {error.remedy}") from error
    data = folder / described.data
    if described.flavor == "onnx":
        from foretell.inference.runtimes import onnx_guess

        made = onnx_guess.guess(data, permissions)
    elif described.is_skops:
        from foretell.inference.runtimes import skops

        made = skops.guess(data, permissions)
    else:
        from foretell.inference.runtimes import joblib

        made = joblib.guess(data, permissions)
    artifact = f"{FOLDER}/{data.name}"
    files = {artifact: data, f"{FOLDER}/{_MLMODEL}": described.file}
    made = replace(made, files=files, artifact=artifact)
    return replace(_with_signature(made, described), example=_example(folder, described, made))


def _with_signature(made: Guess, described: _Model) -> Guess:
    """The guess with the types of the signature, where the model itself knew no better."""
    names = [column["feature"] for column in made.options.get("columns", ())]
    if len(names) != len(described.inputs):
        return made
    properties = dict(made.features_schema["properties"])
    for name, (_, kind) in zip(names, described.inputs, strict=True):
        if kind and "enum" not in properties[name]:
            properties[name] = {**properties[name], "type": kind}
    return replace(made, features_schema={**made.features_schema, "properties": properties})


def _example(folder: Path, described: _Model, made: Guess) -> tuple[Stage, dict[str, Any]] | None:
    """The first row of the example that was logged with the model, if it is a table."""
    if not described.example:
        return None
    try:
        table = msgspec.json.decode((folder / described.example).read_bytes())
        columns = [column.get("column") or column["feature"] for column in made.options["columns"]]
        names = [column["feature"] for column in made.options["columns"]]
        rows = table["data"] if isinstance(table, dict) else table
        row = dict(zip(table.get("columns", columns), rows[0], strict=True)) if isinstance(table, dict) else rows[0]
        return "features", {name: row[column] for name, column in zip(names, columns, strict=True)}
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError, IndexError):
        return None

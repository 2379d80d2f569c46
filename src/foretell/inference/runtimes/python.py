"""Models as a Python class of the package: see python_class.py for its form.

    [options]
    class = "model:Doubler"     # the class of a file of the package

`artifact` and `sha256` may name a file that the class reads in `load`, and [files] more files; their hashes are
checked first.
"""

from pathlib import Path
from typing import Any

import msgspec

from foretell.inference.code import import_file, load_code
from foretell.inference.guessing import CannotGuess, Guess
from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken, read_artifact, read_file, read_options
from foretell.inference.python_class import NotAModel, dump, make, schemas, step
from foretell.inference.runtimes import NOTHING_MORE, Permissions

Row = dict[str, Any]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"class_": "class"}):
    """The `options` of a manifest whose runtime is python."""

    class_: str


class PythonModel:
    """An instance of the class."""

    def __init__(self, instance: Any) -> None:
        self._predict = instance.predict
        self._types = step(type(instance), "predict")

    def predict(self, rows: list[Row]) -> list[Row]:
        answers = self._predict([self._types.takes.validate_python(row) for row in rows])
        return [dump(self._types.gives, answer) for answer in answers]


def load(package: ModelPackage, _: Permissions = NOTHING_MORE) -> PythonModel:
    """Import the class, check its types against the schemas, and make it ready. Raises `PackageBroken`."""
    kind = load_class(package)
    if package.manifest.artifact:
        read_artifact(package)
    for name in package.manifest.files:
        read_file(package, name)
    return PythonModel(make(package, kind))


def load_class(package: ModelPackage) -> type:
    """The class that the options name. Raises `PackageBroken`."""
    entry = read_options(package, Options).class_
    kind = load_code(package, entry, "class")
    if not isinstance(kind, type):
        raise PackageBroken(f"{entry} is no class", package.path / MANIFEST, "Correct `class` under [options].")
    return kind


def guess(file: Path, _: Permissions = NOTHING_MORE) -> Guess:
    """The guess for a package of the class in `file`; runs the file. Raises `CannotGuess`."""
    try:
        module = import_file(file, f"foretell_guess_{file.stem}")
    except Exception as error:
        raise CannotGuess(f"{file} cannot be imported: {type(error).__name__}: {error}.") from error
    kinds = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__ and hasattr(each, "predict")
    ]
    if len(kinds) != 1:
        names = ", ".join(each.__name__ for each in kinds) or "none"
        raise CannotGuess(f"{file} must have one class with a method `predict`; it has {names}.")
    (kind,) = kinds
    try:
        made = schemas(kind)
    except NotAModel as error:
        raise CannotGuess(f"{error} ({file})") from error
    for stage, schema in made.items():
        if schema.get("type") != "object":
            raise CannotGuess(f"The {stage} of {kind.__name__} must be an object: a pydantic model, say ({file}).")
    entry = f"model:{kind.__name__}"
    return Guess(
        features_schema=made["features"],
        output_schema=made["output"],
        input_schema=made.get("input"),
        options={"class": entry},
        preprocessing=entry if "input" in made else None,
        files={"model.py": file},
        remarks=("Files that the class reads belong into the folder of the package, too, and under [files].",)
        if hasattr(kind, "load")
        else (),
    )

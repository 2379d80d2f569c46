"""A model package: a folder that describes one version of one model.

    model.toml             the manifest (`Manifest`)
    features.schema.json   input of the model (JSON Schema 2020-12, an object)
    output.schema.json     output of the model
    input.schema.json      input of the preprocessing; without preprocessing the input is the features
    the artifact           the trained model, with its sha256 in the manifest

Reading a package loads no artifact, runs no code of the package and imports no numpy, because the app reads it, too.
"""

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from foretell.contracts.fields import Field, fields_of
from foretell.contracts.messages import Stage
from foretell.contracts.queues import MAX_ENVELOPE_TASKS
from foretell.inference.schema import Validator, sentence
from foretell.inference.small_files import Unfit, read_small
from foretell.kit import structs
from foretell.kit.errors import ForetellError
from foretell.kit.misfits import misfit_of

MANIFEST = "model.toml"

#: All runtimes; `runtimes/__init__.py` loads them.
RuntimeName = Literal["onnx", "skops", "joblib", "mlflow", "python", "remote"]

#: Runtimes that need no artifact: the model is the code of a class, or on another server.
_WITHOUT_ARTIFACT: frozenset[RuntimeName] = frozenset({"python", "remote"})


class PackageBroken(ForetellError):
    """{what} ({where}). {remedy}"""

    code = "package_broken"

    def __init__(self, what: str, where: str | Path, remedy: str) -> None:
        super().__init__(what=what, where=str(where), remedy=remedy)


class InvalidField(ValueError):
    """Raised (or returned for a row) by a package's preprocessing when a field can't be used.

    `message` continues the field's name: `InvalidField("departure_time", "must be a time, HH:MM")`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text for users, in the two languages of the product."""

    en: Annotated[str, msgspec.Meta(min_length=1)]
    ru: Annotated[str, msgspec.Meta(min_length=1)]


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value to try, `input` or `features`, with its output."""

    output: dict[str, Any]
    input: dict[str, Any] | None = None
    features: dict[str, Any] | None = None
    title: Text | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `model.toml`."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z", max_length=64)]
    #: Semantic version: 1.2.3, or 1.2.3-rc1 for one that is not yet the default.
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?\Z", max_length=64)]
    title: Text
    description: Text
    runtime: RuntimeName
    price_credits: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    #: After this time a prediction fails with `timeout`.
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    #: The most rows in one call of the model.
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=MAX_ENVELOPE_TASKS)]
    #: The file of the trained model, and its hash, which is checked before it is loaded. The runtimes python and remote
    #: do not need one.
    artifact: str = ""
    sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    #: Other files that the model reads, such as weights, and their hashes.
    files: dict[str, Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]] = {}
    #: A separate pool of workers (the queue `ml_tasks.NAME`), for example for a model that needs a GPU.
    queue: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z", max_length=64)] | None = None
    #: Labels for the values of the output: {"0": "on time"}.
    labels: dict[str, Text] = {}
    examples: list[Example] = []
    #: How far numbers may be from those of the examples' outputs: for a library that computes a little differently on
    #: other processors.
    tolerance: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    #: A function of a Python file of the package, "preprocessing:preprocess", or a class that has a method
    #: `preprocess`, "model:DelayModel" (see python_class.py).
    preprocessing: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*\Z")] | None = None
    #: Whether that function takes one row and returns its features, or a list of rows and returns a list.
    preprocessing_takes: Literal["row", "rows"] = "row"
    #: Whether a starting process skips the first prediction: for a model that needs much memory from then on,
    #: and may never be used.
    lazy: bool = False
    #: Options of the runtime: see the runtime.
    options: dict[str, Any] = {}


@dataclass(frozen=True)
class ModelPackage:
    """One version of one model, read and checked. `path` is its folder."""

    path: Path
    manifest: Manifest
    input_schema: dict[str, Any]
    features_schema: dict[str, Any]
    output_schema: dict[str, Any]

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def title(self) -> Text:
        return self.manifest.title

    @property
    def description(self) -> Text:
        return self.manifest.description

    @property
    def price_credits(self) -> int:
        return self.manifest.price_credits

    @property
    def timeout_s(self) -> float:
        return self.manifest.timeout_s

    @property
    def max_batch(self) -> int:
        return self.manifest.max_batch

    @property
    def queue(self) -> str | None:
        return self.manifest.queue

    @property
    def labels(self) -> dict[str, Text]:
        return self.manifest.labels

    @property
    def examples(self) -> list[Example]:
        return self.manifest.examples

    @property
    def artifact_path(self) -> Path:
        """The file of the trained model; the folder if there is none."""
        return self.path / self.manifest.artifact

    @property
    def has_preprocessing(self) -> bool:
        """Whether `input` and `features` differ."""
        return self.manifest.preprocessing is not None

    def schema(self, stage: Stage) -> dict[str, Any]:
        """The JSON Schema of `stage`."""
        return self.input_schema if stage == "input" else self.features_schema

    @cached_property
    def fields(self) -> list[Field]:
        """The input as a form, with the values of the first example."""
        first = next((each for each in self.examples if self._example_input(each) is not None), None)
        return fields_of(self.input_schema, None if first is None else self._example_input(first))

    def _example_input(self, example: Example) -> dict[str, Any] | None:
        return example.input if self.has_preprocessing else example.input or example.features

    @cached_property
    def input_validator(self) -> Validator:
        return Validator(self.input_schema)

    @cached_property
    def features_validator(self) -> Validator:
        return Validator(self.features_schema)

    @cached_property
    def output_validator(self) -> Validator:
        return Validator(self.output_schema)

    def validator(self, stage: Stage) -> Validator:
        """The compiled schema of `stage`; compiled once."""
        return self.input_validator if stage == "input" else self.features_validator


def load_package(folder: Path) -> ModelPackage:
    """Read and check the package in `folder`. Raises `PackageBroken`."""
    manifest = _read_manifest(folder / MANIFEST)
    _check_artifact(folder, manifest)
    features_schema = _read_schema(folder / "features.schema.json")
    output_schema = _read_schema(folder / "output.schema.json")
    input_file = folder / "input.schema.json"
    if manifest.preprocessing is None:
        if input_file.exists():
            raise PackageBroken(
                "There is a schema of the input but no preprocessing that would turn it into features",
                input_file,
                "Name the function as `preprocessing` in model.toml, or remove the file.",
            )
        input_schema = features_schema
    else:
        _check_file(folder, manifest.preprocessing.split(":")[0] + ".py", "preprocessing")
        input_schema = _read_schema(input_file)
    package = ModelPackage(folder, manifest, input_schema, features_schema, output_schema)
    _check_examples(package)
    return package


Options = TypeVar("Options")


def read_options(package: ModelPackage, kind: type[Options]) -> Options:
    """The manifest's `options` as the runtime's type. Raises `PackageBroken`."""
    try:
        return structs.convert(package.manifest.options, kind)
    except msgspec.ValidationError as error:
        raise PackageBroken(
            f"The options do not fit the runtime {package.manifest.runtime}: {misfit_of(error).sentence}",
            package.path / MANIFEST,
            "Correct them under [options].",
        ) from error


def read_artifact(package: ModelPackage) -> bytes:
    """The bytes of the artifact, with a checked hash. Raises `PackageBroken`.

    A runtime loads these bytes and does not read the file again, because it could have changed in between.
    """
    return _read_hashed(package.artifact_path, package.manifest.sha256)


def read_file(package: ModelPackage, name: str) -> bytes:
    """The same for a file in the manifest's `files`; `name` is its path in the package."""
    expected = package.manifest.files.get(name)
    if expected is None:
        raise PackageBroken(
            f"The model reads the file {name}, which the manifest does not name",
            package.path / MANIFEST,
            "Put the file into the package and write its sha256 into model.toml: foretell models check --update",
        )
    return _read_hashed(package.path / name, expected)


def _read_hashed(file: Path, expected: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PackageBroken(f"The file cannot be read: {error.strerror}", file, "Put the file back.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise PackageBroken(
            f"The file is not the one the manifest names: its sha256 is {found}, not {expected}",
            file,
            "Put the right file back; if you replaced it yourself, write its hash down: foretell models check --update",
        )
    return content


def version_key(version: str) -> tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...]]:
    """Sorts semantic versions by age: 1.9.0 < 1.10.0-rc1 < 1.10.0."""
    numbers, _, label = version.partition("-")
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"[.-]", label))
    return tuple(int(number) for number in numbers.split(".")), 0 if label else 1, parts


def _read_manifest(file: Path) -> Manifest:
    try:
        content = tomllib.loads(_read_text(file))
        return structs.convert(content, Manifest)
    except tomllib.TOMLDecodeError as error:
        raise PackageBroken(f"The manifest is not TOML: {error}", file, "Correct it there.") from error
    except RecursionError as error:
        raise PackageBroken("The manifest is nested too deep", file, "Correct it there.") from error
    except msgspec.ValidationError as error:
        raise PackageBroken(
            f"The manifest does not fit: {misfit_of(error).sentence}", file, "Correct that field."
        ) from error


def _read_schema(file: Path) -> dict[str, Any]:
    try:
        schema = structs.decode(_read_text(file), dict[str, Any])
        Validator(schema)
    except msgspec.DecodeError as error:
        raise PackageBroken(f"The schema is not a JSON object: {error}", file, "Correct it there.") from error
    except ValueError as error:
        first_line = str(error).splitlines()[0]
        raise PackageBroken(f"This is no JSON Schema 2020-12: {first_line}", file, "Correct it there.") from error
    except RecursionError as error:
        raise PackageBroken("The schema is nested too deep", file, "Correct it there.") from error
    if schema.get("type") != "object":
        raise PackageBroken("The schema does not describe an object", file, 'Give it "type": "object".')
    return schema


def _read_text(file: Path) -> str:
    try:
        return read_small(file).decode("utf-8")
    except Unfit as error:
        raise PackageBroken(error.what, file, error.remedy) from error
    except FileNotFoundError as error:
        raise PackageBroken("The package lacks a file", file, "Put it there.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PackageBroken(f"The file cannot be read: {error}", file, "It must be readable UTF-8 text.") from error


def _check_artifact(folder: Path, manifest: Manifest) -> None:
    if manifest.artifact:
        _check_file(folder, manifest.artifact, "artifact")
    elif manifest.runtime not in _WITHOUT_ARTIFACT:
        raise PackageBroken(
            f"The runtime {manifest.runtime} needs `artifact`", folder / MANIFEST, "Name the file of the trained model."
        )
    for name in manifest.files:
        _check_file(folder, name, "files")
    if bool(manifest.artifact) != bool(manifest.sha256):
        raise PackageBroken(
            "`artifact` and `sha256` belong together", folder / MANIFEST, "Name the file and the hash it must have."
        )


def _check_file(folder: Path, name: str, field: str) -> None:
    file = folder / name
    try:
        is_inside = file.resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # Python 3.11 and 3.12 raise it for links in a circle
        is_inside = False
    if not is_inside:
        raise PackageBroken(f"The {field} lies outside the package: {name}", folder, "Name a file of the package.")
    if not file.is_file():
        raise PackageBroken("The package lacks a file", file, f"Put it there, or correct `{field}` in model.toml.")


def _check_examples(package: ModelPackage) -> None:
    for number, example in enumerate(package.examples, 1):
        given = [stage for stage in ("input", "features") if getattr(example, stage) is not None]
        if len(given) != 1:
            raise PackageBroken(
                f"Example {number} must have either `input` or `features`", package.path / MANIFEST, "Correct it there."
            )
        asked, validator = (
            (example.input, package.input_validator)
            if example.input is not None
            else (example.features, package.features_validator)
        )
        problems = validator.problems(asked) or package.output_validator.problems(example.output)
        if problems:
            raise PackageBroken(
                f"Example {number} does not fit its own schema: {sentence(problems)}",
                package.path / MANIFEST,
                "Correct the example or the schema.",
            )

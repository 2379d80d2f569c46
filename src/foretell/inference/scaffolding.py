"""Creates a package from a trained model: it reads what it can from the model, and uses defaults for the rest."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from foretell.contracts.fields import titled
from foretell.contracts.messages import Failure, Stage
from foretell.inference.engine import Engine
from foretell.inference.guessing import CannotGuess, Guess, settled, with_nulls
from foretell.inference.inheriting import inherit_words, version_before
from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken, RuntimeName, load_package
from foretell.inference.registry import Registry
from foretell.inference.runtimes import Permissions, Runtime, load_runtime, remedy_for_missing
from foretell.inference.sampling import samples
from foretell.inference.schema import sentence
from foretell.kit.errors import ForetellError

_GUESSES: dict[RuntimeName, str] = {
    "onnx": "foretell.inference.runtimes.onnx_guess",
    "skops": "foretell.inference.runtimes.skops",
    "joblib": "foretell.inference.runtimes.joblib",
    "mlflow": "foretell.inference.runtimes.mlflow",
    "python": "foretell.inference.runtimes.python",
}
_SUFFIXES: dict[str, RuntimeName] = {
    ".onnx": "onnx",
    ".skops": "skops",
    ".joblib": "joblib",
    ".pkl": "joblib",
    ".pickle": "joblib",
    ".py": "python",
}


class CannotScaffold(ForetellError):
    """{reason}"""

    code = "cannot_scaffold"


def scaffold(
    source: Path,
    output: Path,
    *,
    name: str | None,
    version: str,
    permissions: Permissions,
    known: Iterable[ModelPackage] = (),
) -> Guess:
    """Write the package of the model in `source` into the new folder `output`, atomically.

    `name` defaults to that of the file. Price and texts are those of the previous version, if it is among `known`.
    Raises `CannotScaffold`.
    """
    runtime = _runtime_of(source)
    name = name or _name_of(source)
    before = version_before(known, name, version)
    if output.exists() and any(output.iterdir()):
        raise CannotScaffold(reason=f"{output} is there already. Remove it, or name another folder with --output.")
    try:
        guess: Callable[[Path, Permissions], Guess] = import_module(_GUESSES[runtime]).guess
        made = guess(source, permissions)
    except CannotGuess as error:
        raise CannotScaffold(reason=str(error)) from error
    except ImportError as error:
        raise CannotScaffold(
            reason=f"{source} needs a package that is not here ({error}). {remedy_for_missing(runtime, error)}"
        ) from error
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".new-") as draft:
        folder = Path(draft) / output.name
        folder.mkdir()
        _write(folder, made, runtime, name, version, before)
        try:
            made = _try(folder, made, permissions)
            # A class defines the titles of its fields itself.
            if before is not None and runtime != "python":
                inherit_words(folder, before)
                load_package(folder)
        except PackageBroken as error:
            reason = error.message.replace(str(folder), str(output))
            raise CannotScaffold(reason=f"The package that was made of {source} is broken: {reason}") from error
        if output.exists():
            output.rmdir()
        folder.rename(output)
    theirs = f"yours to write: {output / MANIFEST}"
    remark = f"Title, description and price are {theirs}"
    if before is not None:
        remark = f"Price and words are those of {name} {before.version}; what is new is {theirs}"
    return replace(made, remarks=(*made.remarks, remark))


def _runtime_of(source: Path) -> RuntimeName:
    if source.is_dir():
        if (source / "MLmodel").is_file():
            return "mlflow"
        raise CannotScaffold(reason=f"{source} is a folder without a file MLmodel: it is no model of MLflow.")
    if not source.is_file():
        raise CannotScaffold(reason=f"There is no file {source}.")
    runtime = _SUFFIXES.get(source.suffix.lower())
    if runtime is None:
        known = ", ".join(_SUFFIXES)
        raise CannotScaffold(reason=f"{source} ends with none of {known}, and is no folder of MLflow.")
    return runtime


def _name_of(source: Path) -> str:
    """A model's name from that of its file: `Wine Quality_v2.onnx` gives wine-quality-v2."""
    return re.sub(r"[^a-z0-9]+", "-", source.stem.lower()).strip("-") or "model"


def _write(
    folder: Path, made: Guess, runtime: RuntimeName, name: str, version: str, before: ModelPackage | None
) -> None:
    for target, file in made.files.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / target)
    features_schema = with_nulls(made.features_schema, made.nullable)
    schemas = {"input": made.input_schema, "features": features_schema, "output": made.output_schema}
    for stage, schema in schemas.items():
        if schema is not None:
            (folder / f"{stage}.schema.json").write_text(as_json(schema), encoding="utf-8")
    artifact = ""
    if made.artifact:
        artifact = f"artifact = {_toml(made.artifact)}\nsha256 = {_toml(_sha256(folder / made.artifact))}\n"
    # No hashes for code, which its owner may change, but for the trained files.
    others = [name for name in made.files if name != made.artifact and not name.endswith(".py")]
    files = "\n".join(f"{_key(name)} = {_toml(_sha256(folder / name))}" for name in others)
    preprocessing = f"preprocessing = {_toml(made.preprocessing)}\n" if made.preprocessing else ""
    words = _words_for_a_first_version(name) if before is None else _words_of(before)
    options = "\n".join(f"{key} = {_toml(value)}" for key, value in made.options.items())
    (folder / MANIFEST).write_text(
        f"""\
# What this package is; foretell/inference/package.py explains each field, its runtimes/{runtime}.py the options.
name = {_toml(name)}
version = {_toml(version)}
{words}runtime = {_toml(runtime)}
{artifact}max_batch = {made.max_batch}
{preprocessing}
[options]
{options}

[files]
{files}
""",
        encoding="utf-8",
    )


def _words_for_a_first_version(name: str) -> str:
    title = titled(name.replace("-", " "))
    return f"""\
title = {{ en = {_toml(title)}, ru = {_toml(title)} }}
description = {{ en = {_toml(f"{title}: say what it predicts, and from what.")}, ru = {_toml(title)} }}
price_credits = 1
timeout_s = 10
"""


def _words_of(before: ModelPackage) -> str:
    """The values that a new version inherits, as lines of its manifest."""
    manifest = before.manifest
    taken = {
        **{name: msgspec.to_builtins(getattr(manifest, name)) for name in ("title", "description")},
        "price_credits": manifest.price_credits,
        "timeout_s": manifest.timeout_s,
        **({"queue": manifest.queue} if manifest.queue else {}),
        **({"labels": msgspec.to_builtins(manifest.labels)} if manifest.labels else {}),
    }
    return "".join(f"{name} = {_toml(value)}\n" for name, value in taken.items())


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def as_json(schema: dict[str, Any]) -> str:
    """A schema as text for its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _try(folder: Path, made: Guess, permissions: Permissions) -> Guess:
    """Run the model: its answer completes the output's schema, and becomes the first example.

    Returns the guess with remarks. Raises `PackageBroken`, `CannotScaffold`.
    """
    package = load_package(folder)
    runtime = load_runtime(package, permissions)
    engine = Engine(Registry([package]), load=lambda _: runtime)
    failure = "no value that fits the schema can be made up"
    for stage, value in _values_to_try(package, made):
        features = value if stage == "features" else engine.preprocess(package, [value])[0]
        if isinstance(features, Failure):
            failure = features.message
            continue
        problems = package.features_validator.problems(features)
        if problems:
            failure = sentence(problems)
            continue
        try:
            (answer,) = runtime.predict([features])
        except Exception as error:
            # The message may contain values, which is fine for the author of the package.
            failure = f"{type(error).__name__}: {error}"
            continue
        _settle(package, answer)
        _try_nulls(runtime, features, made)
        with (folder / MANIFEST).open("a", encoding="utf-8") as manifest:
            manifest.write(f"\n[[examples]]\n{stage} = {_toml(value)}\noutput = {_toml(answer)}\n")
        load_package(folder)
        return made
    remark = f"The model could not be tried ({failure}), so there is no example. Write one: [[examples]] in {MANIFEST}."
    return replace(made, remarks=(*made.remarks, remark))


def _settle(package: ModelPackage, answer: Any) -> None:
    """Adapt the output's schema to the model's real answer. Raises `CannotScaffold` if a class defines the schema."""
    problems = package.output_validator.problems(answer)
    if problems and (package.manifest.runtime == "python" or not isinstance(answer, dict)):
        raise CannotScaffold(
            reason=f"The model answers {answer}, which is not what its types say: {sentence(problems)} "
            "Correct the class."
        )
    if package.manifest.runtime != "python":
        schema = settled(package.output_schema, answer)
        (package.path / "output.schema.json").write_text(as_json(schema), encoding="utf-8")


def _try_nulls(runtime: Runtime, features: dict[str, Any], made: Guess) -> None:
    """Check that the model works with missing values. Raises `CannotScaffold` if it does not."""
    for name in made.nullable:
        try:
            runtime.predict([{**features, name: None}])
        except Exception as error:
            raise CannotScaffold(
                reason=f"By its signature {name} may be missing (required: false), but without it the model fails: "
                f"{type(error).__name__}: {error}. Log it as required, or train the model with missing values."
            ) from error


def _values_to_try(package: ModelPackage, made: Guess) -> list[tuple[Stage, dict[str, Any]]]:
    stage: Stage = "input" if package.has_preprocessing else "features"
    given = [made.example] if made.example else []
    made_up = samples(package.schema(stage), 20)
    # TOML has no null, so prefer an example without nulls.
    made_up.sort(key=lambda value: None in value.values())
    return [*given, *((stage, value) for value in made_up[:5])]


def _toml(value: Any) -> str:
    """A value as TOML on one line. TOML has no null, so null fields are left out."""
    if isinstance(value, dict):
        fields = ", ".join(f"{_key(key)} = {_toml(inner)}" for key, inner in value.items() if inner is not None)
        return f"{{ {fields} }}" if fields else "{}"
    if isinstance(value, list | tuple):
        if value and all(isinstance(inner, dict) for inner in value):
            return "[\n" + "".join(f"    {_toml(inner)},\n" for inner in value) + "]"
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    # Texts, numbers and truth values have the same notation in JSON and TOML.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)

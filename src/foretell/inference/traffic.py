"""Traffic rules: the version for requests that name none. They are in `traffic.toml` in the operator's model folder.

[flight-delay]
default = "1.0.0"                              # default: the highest version
weights = { "1.0.0" = 95, "1.1.0" = 5 }        # a canary: shares of the requests that name no version
shadow = ["1.2.0"]                             # runs on the same inputs; compared, never returned, never charged
price_credits = 2                              # of every version, in place of settings and manifests
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from foretell.inference.registry import ModelNotFound, Registry, VersionNotFound, highest
from foretell.inference.small_files import Unfit, read_small
from foretell.kit import structs
from foretell.kit.misfits import misfit_of

FILE = "traffic.toml"

Weight = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rule of one model."""

    default: str | None = None
    weights: dict[str, Weight] = {}
    shadow: list[str] = []
    price_credits: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None


class TrafficBroken(Exception):
    """What is wrong with the file, and what to do; a sentence or two."""


def read_traffic(folder: Path) -> dict[str, Split]:
    """The rules in `folder` by model; none without the file. Raises `TrafficBroken`."""
    file = folder / FILE
    try:
        tables = tomllib.loads(read_small(file).decode("utf-8"))
        rules = {name: _split(name, table, file) for name, table in tables.items()}
    except FileNotFoundError:
        return {}
    except Unfit as error:
        raise TrafficBroken(f"{error.what} ({file}). {error.remedy}") from error
    except RecursionError as error:
        raise TrafficBroken(f"The file is nested too deep ({file}). Correct it there.") from error
    except tomllib.TOMLDecodeError as error:
        raise TrafficBroken(f"The file is not TOML: {error} ({file}). Correct it there.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TrafficBroken(f"The file cannot be read: {error} ({file}). It must be readable UTF-8 text.") from error
    for name, split in rules.items():
        if split.weights and not any(split.weights.values()):
            raise TrafficBroken(f"All weights of {name} are 0 ({file}). Give one of them more.")
    return rules


def _split(model: str, table: Any, file: Path) -> Split:
    """The rule for one model. Raises `TrafficBroken`."""
    path: tuple[str, ...] = (model,)
    try:
        weights = table.get("weights") if isinstance(table, dict) else None
        # One by one, because msgspec does not name the key of a mapping in its errors.
        for version, weight in weights.items() if isinstance(weights, dict) else ():
            path = (model, "weights", version)
            structs.convert(weight, Weight)
        path = (model,)
        return structs.convert(table, Split)
    except msgspec.ValidationError as error:
        wrong = misfit_of(error, *path).sentence
        raise TrafficBroken(f"The rules do not fit: {wrong} ({file}). Correct that field.") from error


Field = Literal["default", "weights", "shadow"]


class Misfit(msgspec.Struct, frozen=True):
    """A version in a rule that can't be used."""

    field: Field
    version: str
    #: A sentence.
    reason: str


def misfits(model: str, split: Split, registry: Registry) -> list[Misfit]:
    """The mistakes in a rule, given the packages in `registry`. Raises `ModelNotFound`."""
    try:
        default = registry.get(model, split.default or highest(registry.versions(model)))
    except VersionNotFound as error:
        return [Misfit("default", str(split.default), error.message)]
    found: list[Misfit] = []
    named: tuple[tuple[Field, list[str]], ...] = (("weights", list(split.weights)), ("shadow", split.shadow))
    for field, versions in named:
        for version in versions:
            try:
                package = registry.get(model, version)
            except VersionNotFound as error:
                found.append(Misfit(field, version, error.message))
                continue
            if (package.input_schema, package.features_schema) != (default.input_schema, default.features_schema):
                reason = f"{model} {version} takes another input than {default.version}."
                found.append(Misfit(field, version, reason))
    return found


def problem_of(model: str, split: Split, registry: Registry) -> str:
    """The same as one text, with a remedy; empty if the rule is valid."""
    try:
        found = misfits(model, split, registry)
    except ModelNotFound as error:
        return f"{error.message} Install it, or correct the name."
    if not found:
        return ""
    return f"{found[0].field}: {found[0].reason} Install that version, or name another."


def without_misfits(model: str, split: Split, registry: Registry) -> Split:
    """The valid part of a rule."""
    try:
        found = misfits(model, split, registry)
        if any(each.field == "default" for each in found):
            split = msgspec.structs.replace(split, default=None)
            found = misfits(model, split, registry)
    except ModelNotFound:
        return Split()
    wrong = {(each.field, each.version) for each in found}
    return msgspec.structs.replace(
        split,
        weights={version: weight for version, weight in split.weights.items() if ("weights", version) not in wrong},
        shadow=[version for version in split.shadow if ("shadow", version) not in wrong],
    )


def write_traffic(folder: Path, rules: Mapping[str, Split]) -> None:
    """Write the rules atomically; comments in the file are lost. The caller must also touch the stamp."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_HEAD, *(_section(name, rules[name]) for name in sorted(rules) if rules[name] != Split())]
    descriptor, draft = tempfile.mkstemp(dir=folder, prefix=f".{FILE}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write("\n".join(parts))
            stream.flush()
            os.fsync(stream.fileno())
        # Services with other accounts on this machine must be able to read it.
        Path(draft).chmod(0o644)
        Path(draft).replace(folder / FILE)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


_HEAD = "# Who gets the requests that name no version, and what they cost. The operators' page writes this, too.\n"


def _section(name: str, split: Split) -> str:
    lines = [f"[{_quoted(name)}]"]
    if split.default is not None:
        lines.append(f"default = {_quoted(split.default)}")
    if split.weights:
        weights = ", ".join(f"{_quoted(version)} = {weight!r}" for version, weight in split.weights.items())
        lines.append(f"weights = {{ {weights} }}")
    if split.shadow:
        lines.append(f"shadow = [{', '.join(map(_quoted, split.shadow))}]")
    if split.price_credits is not None:
        lines.append(f"price_credits = {split.price_credits}")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    # A JSON string is also a basic string of TOML.
    return json.dumps(text, ensure_ascii=False)

"""models: the model packages that are installed here."""

from typing import Any

from foretell.cli.output import count, print_json, remark, say, show, table
from foretell.inference.live import LiveRegistry
from foretell.inference.package import ModelPackage
from foretell.inference.reference import ReferenceBroken, read_reference
from foretell.inference.registry import Registry
from foretell.inference.runtimes import obstacle
from foretell.inference.settings import InferenceSettings


def _registry() -> Registry:
    settings = InferenceSettings()
    return LiveRegistry.installed(settings.models_dir, settings.data_dir)


def list_models(*, as_json: bool) -> None:
    """Show every model package, and the problems of those that can't be used."""
    registry = _registry()
    if as_json:
        print_json([_as_json(package) for package in registry])
        return
    made = table(
        ["model", "version", "title", "credits", "runtime", "batch", "limit"], right=["credits", "batch", "limit"]
    )
    for package in registry:
        default = registry.default_versions[package.name] == package.version
        made.add_row(
            package.name,
            package.version + (" (default)" if default and len(registry.versions(package.name)) > 1 else ""),
            package.title.en,
            str(package.price_credits),
            package.manifest.runtime,
            str(package.max_batch),
            f"{package.timeout_s:g} s",
        )
    show(made)
    for broken in registry.unavailable:
        remark(f"{broken.name} can't be used: {broken.reason}")
    permissions = InferenceSettings().permissions
    for package in registry:
        reason = obstacle(package, permissions)
        if reason:
            remark(f"{package.name} {package.version} can't be used: {reason}")


def _as_json(package: ModelPackage) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "title": package.title.en,
        "price_credits": package.price_credits,
        "runtime": package.manifest.runtime,
        "max_batch": package.max_batch,
        "timeout_s": package.timeout_s,
        "path": str(package.path),
    }


def show_model(name: str, version: str | None) -> None:
    """Show input, output and price of one model."""
    package = _registry().get(name, version)
    say(f"{package.name} {package.version}: {package.title.en}")
    say(package.description.en)
    say("")
    say(f"{count(package.price_credits, 'credit')}, at most {package.timeout_s:g} s, in {package.path}")
    say(f"Reference for drift: {_reference(package)}")
    stages = [("Input", package.input_schema), ("Features", package.features_schema), ("Output", package.output_schema)]
    for title, schema in stages if package.has_preprocessing else [stages[0], stages[2]]:
        say("")
        say(title)
        made = table(["field", "type", "bounds", "meaning"])
        required = schema.get("required", [])
        for field, about in schema.get("properties", {}).items():
            mark = "" if field in required else " (may be absent)"
            made.add_row(
                field + mark, _type(about), _bounds(about), str(about.get("description", about.get("title", "")))
            )
        show(made)
    example = next((each.input for each in package.examples if each.input), None)
    if example:
        fields = " ".join(f"{field}={value}" for field, value in example.items())
        say(f"Try: foretell predict {package.name} {fields}")


def _reference(package: ModelPackage) -> str:
    try:
        reference = read_reference(package.path)
    except ReferenceBroken as error:
        return error.message
    if reference is None:
        return "none. foretell models reference makes one."
    fields = f"{count(len(reference.features), 'feature')} and {count(len(reference.outputs), 'output')}"
    return f"{fields} of {count(reference.rows, 'row')}"


def _type(about: dict[str, Any]) -> str:
    kind = about.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _bounds(about: dict[str, Any]) -> str:
    if "enum" in about:
        return ", ".join(map(str, about["enum"]))
    words = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
    }
    return ", ".join(text.format(about[keyword]) for keyword, text in words.items() if keyword in about)

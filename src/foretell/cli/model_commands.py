"""`foretell models …`, as Typer reads it; what the commands do is in `modelling.py` and `packages.py`."""

from pathlib import Path
from typing import Annotated

import typer

models_app = typer.Typer(help="The model packages that are installed here.", no_args_is_help=True)


@models_app.command("list")
def models_list(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show every model package."""
    from foretell.cli import packages

    packages.list_models(as_json=as_json)


@models_app.command("show")
def models_show(name: str, version: Annotated[str | None, typer.Option(help="Default: the newest.")] = None) -> None:
    """Show what one model takes, answers and costs."""
    from foretell.cli import packages

    packages.show_model(name, version)


@models_app.command("new")
def models_new(
    source: Annotated[Path, typer.Argument(help="An .onnx, .skops, .joblib or .py file, or a folder of MLflow.")],
    name: Annotated[str | None, typer.Option("--name", help="Default: as the file.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The new folder; default: the name.")] = None,
    model_version: Annotated[str, typer.Option("--model-version", help="Which version of the model.")] = "1.0.0",
    trust: Annotated[list[str] | None, typer.Option("--trust", help="A type that a skops file may contain.")] = None,
) -> None:
    """Make a package of a trained model. What can be read off the model is; nothing is asked."""
    from foretell.cli import modelling

    modelling.new(source, name=name, version=model_version, output=output, trusted=trust or [])


@models_app.command("check")
def models_check(
    package: Annotated[str, typer.Argument(help="A package's folder, or the name of an installed model.")],
    update: Annotated[bool, typer.Option("--update", help="First write hash and a class's schemas anew.")] = False,
) -> None:
    """Load a package, run its examples, compare rows alone with rows together, measure. Ends with 1 if it is wrong."""
    from foretell.cli import modelling

    modelling.check(package, update=update)


@models_app.command("reference")
def models_reference(
    package: Annotated[str, typer.Argument(help="A package's folder, or the name of an installed model.")],
    data: Annotated[Path, typer.Argument(help="What it was trained on: .csv, .jsonl or .ndjson, one row each.")],
    as_input: Annotated[bool, typer.Option("--input", help="The rows are raw input, not features.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write an existing reference anew.")] = False,
    day: Annotated[str | None, typer.Option("--day", help="Column with the date: how do days usually differ?")] = None,
) -> None:
    """Count how features and answers are distributed in data: what drift is measured against. Writes reference.json."""
    from foretell.cli import modelling

    modelling.reference(package, data, as_input=as_input, replace=replace, day=day)


@models_app.command("add")
def models_add(
    package: Annotated[Path, typer.Argument(help="A package's folder.")],
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of the same version.")] = False,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Do not check it first.")] = False,
) -> None:
    """Check a package and install it: services that run offer it within seconds."""
    from foretell.cli import modelling

    modelling.add(package, replace=replace, unchecked=unchecked)


@models_app.command("remove")
def models_remove(
    name: str, version: Annotated[str | None, typer.Option("--version", help="If there are several.")] = None
) -> None:
    """Take an installed package out. What was accepted for it is still answered."""
    from foretell.cli import modelling

    modelling.remove(name, version)


@models_app.command("reload")
def models_reload() -> None:
    """Check packages and traffic.toml after a change by hand, and have services that run read them anew."""
    from foretell.cli import modelling

    modelling.reload()


@models_app.command("serve")
def models_serve(
    package: Annotated[Path, typer.Argument(help="A package's folder.")],
    host: Annotated[str, typer.Option("--host", help="Where to answer.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where to answer.")] = 8001,
) -> None:
    """Answer for one package at once, without accounts or credits, until Ctrl-C: to try it by HTTP."""
    from foretell.cli import modelling

    modelling.serve(package, host=host, port=port)

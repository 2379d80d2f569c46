"""models: new, check, reference, add, remove, reload, serve."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from functools import partial
from pathlib import Path

import structlog
from pydantic import ValidationError

from foretell.cli.output import remark, say
from foretell.contracts.messages import Stage
from foretell.inference import checking, installing, live
from foretell.inference.changes import problems_of_changes
from foretell.inference.engine import Engine
from foretell.inference.measuring import MOST_ROWS, MOST_ROWS_OF_DAYS, bins_of, measure
from foretell.inference.package import ModelPackage, load_package
from foretell.inference.reference import FILE, write_reference
from foretell.inference.registry import ModelNotFound, Registry, shipped_folder
from foretell.inference.row_files import day_of, drawn, read_rows
from foretell.inference.runtimes import Permissions, load_runtime
from foretell.inference.scaffolding import scaffold
from foretell.inference.settings import InferenceSettings
from foretell.inference.stability import LEAST_DAY_ROWS, LEAST_DAYS
from foretell.kit.errors import ForetellError, Misconfigured
from foretell.local.engine import LocalEngine
from foretell.local.following import Following, NotFollowed, sentences
from foretell.local.installation import Installation

#: A reference of fewer rows is not reliable.
_FEW_ROWS = 1000
_MARKS = {"ok": "ok     ", "warning": "warning", "wrong": "WRONG  "}


class CheckFailed(ForetellError):
    """{path} is not ready: see above."""

    code = "check_failed"


class NoFolder(ForetellError):
    """There is no folder of models {folder} yet, so nothing was added that a service could read anew."""

    code = "no_models_folder"


class NoReference(ForetellError):
    """{reason}."""

    code = "no_reference"


def new(source: Path, *, name: str | None, version: str, output: Path | None, trusted: list[str]) -> None:
    """Make a package of a trained model, and say what to look at. Raises `CannotScaffold`."""
    _hush()
    settings = _settings()
    permissions = Permissions(allowed_pickles=settings.permissions.allowed_pickles, trusted_types=frozenset(trusted))
    remark(f"Reading {source} …")
    target = output or Path(name or source.stem)
    known = live.LiveRegistry.installed(settings.models_dir, settings.data_dir)
    made = scaffold(source, target, name=name, version=version, permissions=permissions, known=known)
    say(f"{target} is made.")
    for line in made.remarks:
        say(f"  {line}")
    say(f"Next: foretell models check {target}")


def check(path_or_name: str, *, update: bool) -> None:
    """Check a package and say how each step went. Raises `CheckFailed`."""
    _hush()
    folder = _folder_of(path_or_name)
    if update:
        changed = installing.update(folder)
        say(f"Written anew: {', '.join(changed)}." if changed else "Nothing had to be written anew.")
    if _checked(folder) is None:
        raise CheckFailed(path=folder)
    say(f"{folder} is ready.")


def reference(path_or_name: str, data: Path, *, as_input: bool, replace: bool, day: str | None) -> None:
    """Write a package's reference.json, of the rows in a file. Raises `UnreadableRows`, `NoReference`.

    `day` names the column that says of which day a row is.
    """
    _hush()
    package = load_package(_folder_of(path_or_name))
    target = package.path / FILE
    if target.exists() and not replace:
        raise NoReference(reason=f"{target} is there already. Write it anew with --replace")
    stage: Stage = "input" if as_input else "features"
    schema = package.schema(stage)
    rows, found = drawn(read_rows(data, schema, also=day), MOST_ROWS if day is None else MOST_ROWS_OF_DAYS)
    days = None
    if day is not None:
        take = dict.get if day in schema.get("properties", {}) else dict.pop
        days = [day_of(take(row, day, None), day, data) for row in rows]
        if not any(days):
            raise NoReference(reason=f"No row of {data} has {day}")
    load = partial(load_runtime, permissions=_settings().permissions)
    measured = measure(package, rows, stage, load, days)
    if measured.reference is None:
        raise NoReference(reason=f"None of the {found} rows of {data} can be used: {measured.first_problem}")
    write_reference(package.path, measured.reference)
    say(f"{target} is made of {measured.reference.rows} rows.")
    if found > len(rows):
        say(f"  Drawn at random from {found}.")
    if measured.refused:
        say(f"  {measured.refused} rows can't be used; the first: {measured.first_problem}")
    if measured.without_outputs:
        say(f"  Without the model's answers, since it can't be loaded here: {measured.without_outputs}")
    if measured.left_out:
        say(f"  Left out, since it can't be counted: {', '.join(measured.left_out)}")
    if measured.reference.rows < _FEW_ROWS:
        say("  That is few: drift is seen late or not at all.")
    said = (*measured.reference.features.values(), *measured.reference.outputs.values())
    if day is not None and not any(field.usual_psi for field in said):
        say(f"  How far days usually are apart is not known: it takes {LEAST_DAYS} of {LEAST_DAY_ROWS} rows or more.")
    for part, fields in (("feature", measured.reference.features), ("output", measured.reference.outputs)):
        for name, field in fields.items():
            say(f"  {part} {name}: {bins_of(field)}")


def add(source: Path, *, replace: bool, unchecked: bool) -> None:
    """Check a package and install it, unless a service that runs here can't load it.

    Raises `CheckFailed`, `PackageBroken`, `AlreadyInstalled`, `NotServed`, `NotFollowed`.
    """
    _hush()

    def approve(copy: Path) -> None:
        if not unchecked and _checked(copy) is None:
            raise CheckFailed(path=source)

    def followed(package: ModelPackage) -> str:
        say(f"{package.name} {package.version} is installed in {package.path}.")
        added = {f"{package.name} {package.version}", str(package.path.resolve())}
        return _cannot_be_loaded(lambda what: what in added or os.path.realpath(what) in added)

    # The copy is checked, not the source, because files that are missing in the copy are missing for the services, too.
    try:
        package = installing.install(source, _operators_folder(), replace=replace, approve=approve, followed=followed)
    except installing.NotServed:
        # Wait until the previous version is served again before the command ends.
        with suppress(NotFollowed):
            _cannot_be_loaded(lambda _: True)
        raise
    say(f"What it takes and answers: foretell models show {package.name}")


def remove(name: str, version: str | None) -> None:
    """Take an installed package out. Raises `NotInstalled`, `WhichVersion`, `Ships`, `NotFollowed`."""
    package = installing.remove(name, version, _operators_folder())
    say(f"{package.name} {package.version} is removed. What was accepted for it is still answered.")
    _cannot_be_loaded(lambda _: False)


def reload() -> None:
    """Check changes made by hand, and make every running service read them.

    Raises `NoFolder`; `NotServed` if there is a mistake, and then no service reads anything; `NotFollowed`.
    """
    folder = _operators_folder()
    if not folder.is_dir():
        raise NoFolder(folder=folder)
    _hush()
    with _in_an_empty_folder():
        problems = problems_of_changes(folder.absolute(), load=_load_once)
    if problems:
        raise installing.NotServed(reasons=" ".join(problems), outcome="No service was told: all serve what they did.")
    live.touch_stamp(folder)
    # Ignore shipped packages, which may lack a library on this machine; that is not caused by the change.
    shipped = {f"{package.name} {package.version}" for package in Registry.discover(shipped_folder())}
    reasons = _cannot_be_loaded(lambda what: what not in shipped)
    if not reasons:
        # No service runs that could report it.
        broken = live.LiveRegistry(folder).unavailable
        reasons = " ".join(f"{each.name} can't be used: {each.reason}" for each in broken)
    if reasons:
        raise installing.NotServed(reasons=reasons, outcome="What can be loaded is served.")


def _cannot_be_loaded(concerns: Callable[[str], bool]) -> str:
    """Wait until every service of the running engine has applied the change.

    Returns which services can't load what and why, if it `concerns` the caller; otherwise empty. Raises `NotFollowed`.
    """
    engine = LocalEngine(Installation.from_environment())
    record = engine.record()
    if record is None:
        say("No services run here; those that run elsewhere with this folder follow within seconds.")
        return ""
    folder = _operators_folder()

    def on_slow(names: Sequence[str]) -> None:
        remark(f"Still being loaded by {', '.join(names)}. Ctrl-C leaves them to it.")

    following = Following(engine.followers(record), lambda: live.read_stamp(folder), engine.pids, on_slow=on_slow)
    found = following.until_done(concerns)
    if not found:
        say("Every service that runs here has read it.")
    return sentences(found)


def _checked(folder: Path) -> ModelPackage | None:
    def report(finding: checking.Finding) -> None:
        say(f"{_MARKS[finding.outcome]}  {finding.step:<9} {finding.detail}")

    load, place = partial(load_runtime, permissions=_settings().permissions), folder.absolute()
    with _in_an_empty_folder():
        return checking.check(place, load, report)


@contextmanager
def _in_an_empty_folder() -> Iterator[None]:
    """Run in an empty folder: files that a model finds only in the current folder would be missing in a service."""
    with tempfile.TemporaryDirectory() as nowhere, chdir(nowhere):
        yield


def _load_once(package: ModelPackage) -> None:
    """Load a model and run a first prediction, as each service does. Raises `PackageBroken`."""
    load = partial(load_runtime, permissions=_settings().permissions)
    Engine(Registry([package]), load=load).warm_package(package)


def _folder_of(path_or_name: str) -> Path:
    """A package's folder, named by its path or by the name of an installed model."""
    path = Path(path_or_name)
    if path.exists() or os.sep in path_or_name:
        return path
    operators = _operators_folder()
    try:
        registry = Registry.discover(shipped_folder(), *([operators] if operators.exists() else []))
        return registry.get(path_or_name).path
    except ModelNotFound:
        raise ModelNotFound(f"There is neither a folder nor an installed model {path_or_name}.") from None


def _operators_folder() -> Path:
    settings = _settings()
    return live.operators_folder(settings.models_dir, settings.data_dir)


def _settings() -> InferenceSettings:
    try:
        return InferenceSettings()
    except ValidationError as error:
        wrong = "; ".join(f"FORETELL_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors())
        raise Misconfigured(f"The settings do not fit. {wrong}") from None


def _hush() -> None:
    """Silence the engine's log lines; here the findings report the problems."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def serve(source: Path, *, host: str, port: int) -> None:
    """Answer for one package alone, without accounts, until Ctrl-C. Raises `PackageBroken`, `Misconfigured`."""
    from foretell.kit.lifecycle import run, serve_http
    from foretell.services.model import app as model_service
    from foretell.services.model.models import Models
    from foretell.services.model.settings import ModelSettings

    package = load_package(source)
    settings = ModelSettings(host=host, port=port)
    with tempfile.TemporaryDirectory() as folder:
        alone, nothing = Path(folder) / "models", Path(folder) / "nothing"
        alone.mkdir()
        nothing.mkdir()
        (alone / package.name).symlink_to(source.resolve(), target_is_directory=True)
        registry = live.LiveRegistry(alone, shipped=nothing)
        models = Models(registry, load=partial(load_runtime, permissions=settings.permissions))

        async def answer(instance: str, stopping: asyncio.Event) -> None:
            loading = asyncio.create_task(models.follow())
            try:
                await serve_http(model_service.build(models, settings, instance), settings, stopping)
            finally:
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)

        address = f"http://{host}:{port}"
        say(f"{package.name} {package.version} at {address}/models/{package.name}/predict; {address}/docs shows more.")
        run("model_service", settings, answer)

"""Models, for operators: versions, traffic, prices, comparisons, packages."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request

from foretell.contracts import http
from foretell.contracts.fields import Field, fields_of
from foretell.domain.operators import comparison, journal
from foretell.domain.operators.journal import Actor
from foretell.inference.arriving import Archive, Checked
from foretell.inference.changes import problems_of_changes
from foretell.inference.live import read_stamp, touch_stamp
from foretell.inference.package import ModelPackage
from foretell.inference.traffic import Split, TrafficBroken, misfits, read_traffic, write_traffic
from foretell.kit import deadline
from foretell.kit.errors import ForetellError
from foretell.kit.problems import InvalidRequest, pointer
from foretell.services.app.dependencies import ModelName, PlainNumber, State
from foretell.services.app.monitoring import MonitoringAway, MonitoringNotSet
from foretell.services.app.presentation import price_of
from foretell.services.app.routes.admin.acting import Operator, answers
from foretell.services.app.state import AppState

router = APIRouter(prefix="/admin", tags=["operators"])

#: The time limit of the journal entry after a long check.
_JOURNAL_S = 3.0
#: Fields of each kind that are compared, at most.
_MOST_FIELDS = 5
_one_writer = asyncio.Lock()


class FolderNotWritable(ForetellError):
    """The folder of models can't be written here ({reason}). Let the app write it, or change it by hand."""

    code = "folder_not_writable"
    status = 503
    outcome = "not_done"


class RulesBroken(ForetellError):
    """The rules can't be changed while the file of them is broken. {reason}"""

    code = "rules_broken"
    status = 409


class ChangesBroken(ForetellError):
    """{reasons} No service was told: all serve what they did."""

    code = "changes_broken"
    status = 409


@router.get("/models", summary="Models with their versions", responses=answers())
async def oversee_models(operator: Operator, state: State) -> http.OverseenModels:
    """Installed versions, their traffic and prices, and the packages that can't be used."""
    rules = await _rules(state)
    return http.OverseenModels(
        items=[_model(state, name, rules.get(name, Split())) for name in state.registry.names],
        unavailable=[http.UnavailableModel(name=each.name, reason=each.reason) for each in state.registry.unavailable],
    )


@router.put("/models/{name}/traffic", summary="Set the traffic split", responses=answers(403, 409, 413, 422))
async def divide_traffic(
    name: ModelName, wanted: http.NewTraffic, operator: Operator, state: State
) -> http.OverseenModel:
    """The default version, weights of a canary, shadows. Every service follows within seconds."""
    state.registry.get(name, wanted.default)
    rule = Split(wanted.default, dict(wanted.weights), list(wanted.shadow))
    wrong = misfits(name, rule, state.registry)
    if wrong:
        raise InvalidRequest([{"detail": each.reason, "pointer": pointer(each.field, each.version)} for each in wrong])
    if wanted.weights and not any(wanted.weights.values()):
        raise InvalidRequest([{"detail": "All weights are 0: give one of them more.", "pointer": pointer("weights")}])

    def changed(split: Split) -> Split:
        return msgspec.structs.replace(
            split, default=wanted.default, weights=dict(wanted.weights), shadow=list(wanted.shadow)
        )

    return await _change(state, operator, "model.traffic", name, changed)


@router.put("/models/{name}/price", summary="Set the price", responses=answers(403, 409, 413, 422))
async def set_price(name: ModelName, wanted: http.NewPrice, operator: Operator, state: State) -> http.OverseenModel:
    """In credits, for every version; null: the price of settings or manifest. Accepted predictions keep their price."""
    state.registry.get(name)

    def changed(split: Split) -> Split:
        return msgspec.structs.replace(split, price_credits=wanted.price_credits)

    return await _change(state, operator, "model.price", name, changed)


@router.post("/models/reload", status_code=202, summary="Reload the models", responses=answers(403, 409))
async def reload_models(operator: Operator, state: State) -> http.ModelsStamp:
    """Reload packages and traffic.toml after a manual change, in every service within seconds (`models_stamp`).

    Refused if there is an error in the change. Only `foretell models reload` also tries to load the models.
    """
    folder = state.packages.folder
    problems = await asyncio.to_thread(problems_of_changes, folder) if folder.is_dir() else []
    if problems:
        raise ChangesBroken(reasons=" ".join(problems))
    async with state.database.transaction() as connection:
        await journal.write(connection, operator, "model.reload", "models")
        await _written(partial(folder.mkdir, parents=True, exist_ok=True))
        stamp = await _written(touch_stamp, folder)
    return http.ModelsStamp(models_stamp=stamp)


@router.get("/models/{name}/comparison", summary="Versions side by side", responses=answers(422))
async def compare_versions(
    name: ModelName,
    operator: Operator,
    state: State,
    hours: Annotated[int, Query(ge=1, le=168, description="How far back"), PlainNumber] = 24,
) -> http.ModelComparison:
    """Results and outputs of the versions for the newest 20,000 predictions of that time, and shadow comparisons."""
    package = state.registry.get(name)
    fields = {each.name: each for each in fields_of(package.output_schema) if '"' not in each.name}
    choices = [each.name for each in fields.values() if each.kind in ("choice", "boolean")]
    numbers = [each.name for each in fields.values() if each.kind in ("number", "integer")]
    async with state.database.snapshot() as connection:
        did = await comparison.compare(connection, name, hours=hours)
        answered = await comparison.answers(
            connection, name, hours=hours, choices=choices[:_MOST_FIELDS], numbers=numbers[:_MOST_FIELDS]
        )
    try:
        found = await state.monitoring.read("/reports/shadows", {"window": f"{hours}h"})
        shadows = [http.ShadowDid.model_validate(each) for each in found["items"] if each["model"] == name]
    except (MonitoringAway, MonitoringNotSet):
        shadows = None
    return http.ModelComparison(
        versions=[http.VersionDid.model_validate(each) for each in did],
        answers=_compared(package, fields, answered),
        shadows=shadows,
    )


@router.post(
    "/models",
    summary="Upload a model package",
    responses=answers(403, 413, 422, 429),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def send_package(
    operator: Operator,
    request: Request,
    state: State,
    install: Annotated[bool, Query(description="Install it if it is ready")] = False,
    replace: Annotated[bool, Query(description="In place of the same version")] = False,
) -> http.PackageChecked:
    """Check a package in a ZIP archive (`application/zip`) like `foretell models check`, and install it.

    Its code runs beside the app or its model service, if FORETELL_MODEL_UPLOADS allows that.
    """
    if operator.id is not None:
        state.exports.attempt(operator.id)
    async with state.database.transaction() as connection:
        asked = {"install": install, "replace": replace}
        await journal.write(connection, operator, "model.send", "models", before=asked)
    try:
        archive, checked = await state.packages.take(
            _body(request), install=install, replace=replace, arrived=partial(_prove, state, operator)
        )
    except ForetellError as error:
        await _came_of_it(state, operator, {"failed": error.code})
        raise
    await _came_of_it(state, operator, _facts(archive, checked))
    package = None
    if checked.name is not None and checked.version is not None:
        package = http.PackageName(name=checked.name, version=checked.version)
    return http.PackageChecked(
        ready=checked.ready,
        installed=checked.installed,
        reason=checked.reason,
        package=package,
        findings=[http.CheckFinding.model_validate(each) for each in checked.findings],
    )


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def _prove(state: AppState, operator: Actor) -> None:
    """Check the role again after an upload, which may take long. Raises `NotOperator`."""
    with deadline.allowed(_JOURNAL_S):
        async with state.database.transaction() as connection:
            await journal.prove(connection, operator)


async def _came_of_it(state: AppState, operator: Actor, after: Mapping[str, Any]) -> None:
    # The check took longer than the time limit of a request.
    with deadline.allowed(_JOURNAL_S):
        async with state.database.transaction() as connection:
            await journal.write_outcome(connection, operator, "model.send.done", "models", after=after)


def _facts(archive: Archive, checked: Checked) -> dict[str, Any]:
    wrong = [each["step"] for each in checked.findings if each["outcome"] == "wrong"]
    return {
        "sha256": archive.digest,
        "size_bytes": archive.size_bytes,
        "ready": checked.ready,
        "installed": checked.installed,
        "model": checked.name,
        "version": checked.version,
        "wrong": wrong,
    }


async def _rules(state: AppState) -> dict[str, Split]:
    try:
        return await asyncio.to_thread(read_traffic, state.packages.folder)
    except TrafficBroken as error:
        raise RulesBroken(reason=str(error)) from error


async def _written(write: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return await asyncio.to_thread(write, *arguments)
    except OSError as error:
        raise FolderNotWritable(reason=error.strerror or type(error).__name__) from error


async def _change(state: AppState, operator: Actor, act: str, name: str, change: Any) -> http.OverseenModel:
    """Change the rule of one model and write the journal entry: both, or neither."""
    folder = state.packages.folder
    async with _one_writer:
        rules = await _rules(state)
        before = rules.get(name, Split())
        after = change(before)
        try:
            async with state.database.transaction() as connection:
                await journal.write(
                    connection,
                    operator,
                    act,
                    f"model:{name}",
                    before=msgspec.to_builtins(before),
                    after=msgspec.to_builtins(after),
                )
                await _written(write_traffic, folder, {**rules, name: after})
        except BaseException:
            if (await _rules(state)).get(name, Split()) != before:
                await asyncio.to_thread(write_traffic, folder, rules)
            raise
        await asyncio.to_thread(touch_stamp, folder)
        await asyncio.to_thread(state.registry.refresh_if_told)
    return _model(state, name, after)


def _model(state: AppState, name: str, split: Split) -> http.OverseenModel:
    registry = state.registry
    default = registry.get(name)
    return http.OverseenModel(
        name=name,
        title=http.Words.model_validate(default.title),
        default_version=default.version,
        price=price_of(default, registry, state.settings),
        manifest_price=default.price_credits,
        rule=http.TrafficRule(
            default=split.default, weights=split.weights, shadow=split.shadow, price_credits=split.price_credits
        ),
        versions=[_version(registry.get(name, version), split) for version in registry.versions(name)],
        models_stamp=read_stamp(state.packages.folder),
    )


def _version(package: ModelPackage, split: Split) -> http.OverseenVersion:
    return http.OverseenVersion(
        version=package.version,
        runtime=package.manifest.runtime,
        pool=package.queue,
        timeout_s=package.timeout_s,
        max_batch=package.max_batch,
        manifest_price=package.price_credits,
        weight=split.weights.get(package.version),
        shadow=package.version in split.shadow,
    )


def _compared(
    package: ModelPackage, fields: Mapping[str, Field], answered: Iterable[comparison.Answered]
) -> list[http.ComparedField]:
    by_field: dict[str, list[http.VersionAnswers]] = {}
    for each in answered:
        total = sum(each.counts.values())
        shares = [
            http.ValueShare(label=_label(package, fields[each.field], value), share=round(count / total, 6))
            for value, count in each.counts.items()
        ]
        by_field.setdefault(each.field, []).append(
            http.VersionAnswers(version=each.version, shares=shares, mean=each.mean)
        )
    return [
        http.ComparedField(field=name, title=http.Words.model_validate(fields[name].title), versions=versions)
        for name, versions in by_field.items()
    ]


def _label(package: ModelPackage, field: Field, value: str) -> http.Words:
    """The label of a value, given as JSON text."""
    read = msgspec.json.decode(value)
    shown = read if isinstance(read, str) else value
    if shown in package.labels:
        return http.Words.model_validate(package.labels[shown])
    labels = [each.label for each in field.choices or [] if each.value == read]
    return http.Words.model_validate(labels[0]) if labels else http.Words(en=shown, ru=shown)

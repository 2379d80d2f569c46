"""Assembles the model service: routes on plain ASGI; models load while it already answers."""

import asyncio
from functools import partial
from typing import Any

import foretell
from foretell.inference.live import LiveRegistry, operators_folder
from foretell.inference.observing import observe
from foretell.inference.runtimes import load_runtime
from foretell.kit.asgi import Operations
from foretell.kit.errors import ForetellError, Unavailable
from foretell.kit.lifecycle import run, serve_http
from foretell.kit.own_pages import OwnPages
from foretell.kit.request_log import OPERATIONS, RequestLog
from foretell.kit.routing import Answer, Request, Route, Routes, json_answer, problem_answer
from foretell.kit.swagger import PATHS, Documentation, with_prefix
from foretell.services.model.admin import AdminToken
from foretell.services.model.models import Models
from foretell.services.model.openapi import openapi
from foretell.services.model.routes import open_inference
from foretell.services.model.routes.models import ModelList
from foretell.services.model.routes.open_inference import OpenInference
from foretell.services.model.routes.packages import Packages
from foretell.services.model.routes.predictions import Predictions
from foretell.services.model.routes.repository import Repository
from foretell.services.model.settings import ModelSettings

#: Routes with many thousand requests a second: only failures are logged, since a line for each would dominate the cost.
_HOT = (
    "/predict",
    "/models/{name}/predict",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
)
#: How long the service does not listen while its first models are being loaded. Meanwhile a proxy sends requests to
#: other replicas, which it can't do with a request that was refused because its model is not ready.
_LISTENS_AFTER_S = 10.0


def build(models: Models, settings: ModelSettings, instance: str) -> RequestLog:
    """The service as one ASGI app, with the models of `models`."""

    async def check_models() -> None:
        if not models.all_tried:
            raise Unavailable(part="models, which are being loaded")

    async def check_calls() -> None:
        if models.hanging:
            raise Unavailable(part=f"models that hang: {', '.join(models.hanging)}")

    async def show_openapi(request: Request) -> Answer:
        # Built for each request, because models change.
        return json_answer(with_prefix(openapi(models.registry), request.headers))

    operations = Operations(
        "model_service",
        instance=instance,
        version=foretell.__version__,
        checks={"calls": check_calls},
        # Healthy at once, since each model answers as soon as it is loaded; ready after all loads.
        until_ready={"models": check_models},
        live=lambda: not models.hanging,
        metrics_token=settings.metrics_token,
        details=lambda: {
            "models": [f"{status.name} {status.version}" for status in models.statuses if status.state == "READY"],
            "models_stamp": models.registry.followed,
            "loading": models.loading,
            "unavailable": models.unavailable,
        },
    )
    admin = AdminToken(settings.admin_token.get_secret_value())
    routes = Routes(
        [
            *Predictions(models, max_rows=settings.max_rows).routes,
            *ModelList(models).routes,
            *OpenInference(models, max_rows=settings.max_rows, max_answer_bytes=settings.max_answer_bytes).routes,
            *Repository(models, admin).routes,
            *Packages(settings, admin, operators_folder(settings.models_dir, settings.data_dir)).routes,
            Route("GET", "/openapi.json", show_openapi),
        ],
        max_body_bytes=settings.max_body_bytes,
        explain=_explain,
        parts=[operations, Documentation("Foretell model service", lambda: openapi(models.registry))],
    )
    hot = [routes.hot(path) for path in ("/predict", "/models/{name}/predict")]
    return RequestLog(OwnPages(routes), paths=[*routes.paths, *PATHS], quiet_routes=[*OPERATIONS, *_HOT], hot=hot)


def _explain(error: ForetellError, path: str) -> Answer:
    """Errors of `/v2` have the protocol's format; all others are problems."""
    protocol = path == open_inference.PREFIX or path.startswith(open_inference.PREFIX + "/")
    return (open_inference.error_answer if protocol else problem_answer)(error, path)


async def serve(settings: ModelSettings, instance: str, stopping: asyncio.Event) -> None:
    """Run the model service until `stopping` is set."""
    registry = LiveRegistry.installed(settings.models_dir, settings.data_dir)
    registry.log_unavailable()
    load = partial(load_runtime, permissions=settings.permissions)
    models = Models(registry, load=load, watch=observe(settings))

    async def follow() -> asyncio.Task[None]:
        return asyncio.create_task(models.follow())

    first_loads = asyncio.create_task(models.follow())
    stopped = asyncio.create_task(stopping.wait())
    keeping_up: list[asyncio.Task[Any]] = [first_loads, stopped, asyncio.create_task(registry.watch(follow))]
    try:
        await asyncio.wait({first_loads, stopped}, timeout=_LISTENS_AFTER_S, return_when=asyncio.FIRST_COMPLETED)
        application = build(models, settings, instance)
        await serve_http(application, settings, stopping, application.direct)
    finally:
        for task in keeping_up:
            task.cancel()
        await asyncio.gather(*keeping_up, return_exceptions=True)


def main() -> None:
    """Run the model service in the foreground, with its settings from the environment."""
    settings = ModelSettings()
    run("model_service", settings, lambda instance, stopping: serve(settings, instance, stopping))

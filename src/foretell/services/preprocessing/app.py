"""Assembles the preprocessing service."""

import asyncio

import foretell
from foretell.inference.live import LiveRegistry
from foretell.kit.asgi import Application, Operations
from foretell.kit.errors import Unavailable
from foretell.kit.lifecycle import run, serve_http
from foretell.kit.offloading import in_thread
from foretell.kit.own_pages import OwnPages
from foretell.kit.request_log import RequestLog
from foretell.kit.routing import Answer, Request, Route, Routes, json_answer
from foretell.kit.swagger import PATHS, Documentation, with_prefix
from foretell.services.preprocessing.openapi import openapi
from foretell.services.preprocessing.preprocessors import Preprocessors
from foretell.services.preprocessing.routes.features import Features
from foretell.services.preprocessing.routes.models import ModelList
from foretell.services.preprocessing.settings import PreprocessingSettings


def build(preprocessors: Preprocessors, settings: PreprocessingSettings, instance: str) -> Application:
    """The service as one ASGI app."""

    async def check_calls() -> None:
        if preprocessors.hanging:
            raise Unavailable(part=f"preprocessing that hangs: {', '.join(preprocessors.hanging)}")

    operations = Operations(
        "preprocessing_service",
        instance=instance,
        version=foretell.__version__,
        checks={"calls": check_calls},
        live=lambda: not preprocessors.hanging,
        metrics_token=settings.metrics_token,
        details=lambda: {
            "models": preprocessors.registry.names,
            "models_stamp": preprocessors.registry.followed,
            "unavailable": preprocessors.unavailable,
        },
    )

    async def show_openapi(request: Request) -> Answer:
        # Built for each request, because models change.
        return json_answer(with_prefix(openapi(preprocessors.registry), request.headers))

    routes = Routes(
        [
            *Features(preprocessors, max_rows=settings.max_rows).routes,
            *ModelList(preprocessors).routes,
            Route("GET", "/openapi.json", show_openapi),
        ],
        max_body_bytes=settings.max_body_bytes,
        parts=[
            operations,
            Documentation("Foretell preprocessing service", lambda: openapi(preprocessors.registry)),
        ],
    )
    return RequestLog(OwnPages(routes), paths=[*routes.paths, *PATHS])


async def serve(settings: PreprocessingSettings, instance: str, stopping: asyncio.Event) -> None:
    """Run the preprocessing service until `stopping` is set."""
    registry = LiveRegistry.installed(settings.models_dir, settings.data_dir)
    registry.log_unavailable()
    preprocessors = await in_thread(lambda: Preprocessors(registry))

    async def follow() -> None:
        await in_thread(preprocessors.refresh)

    watching = asyncio.create_task(registry.watch(follow))
    try:
        await serve_http(build(preprocessors, settings, instance), settings, stopping)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def main() -> None:
    """Run the preprocessing service in the foreground, with its settings from the environment."""
    settings = PreprocessingSettings()
    run("preprocessing_service", settings, lambda instance, stopping: serve(settings, instance, stopping))

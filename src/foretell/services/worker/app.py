"""How a worker is put together. Any number of them share a queue; each has an id of its own."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog

import foretell
from foretell.broker.connect import connect
from foretell.broker.port import BrokerUnavailable
from foretell.contracts import queues
from foretell.inference.engine import Engine
from foretell.inference.live import LiveRegistry
from foretell.inference.measures import show_loaded
from foretell.inference.observing import observe
from foretell.inference.registry import ModelNotFound
from foretell.inference.runtimes import load_runtime
from foretell.kit.asgi import Operations
from foretell.kit.lifecycle import run, serve_http
from foretell.services.worker.settings import WorkerSettings
from foretell.services.worker.shadows import Shadows
from foretell.services.worker.work import Worker

log = structlog.get_logger()

#: For a model that this worker does not have: the engine says so at once.
_UNKNOWN_MODEL_LIMIT_S = 10.0
#: What loading a model may take, beside its first call.
_LOADING_LIMIT_S = 120.0


async def serve(settings: WorkerSettings, instance: str, stopping: asyncio.Event) -> None:
    """Run a worker until `stopping` is set."""
    registry = LiveRegistry.installed(settings.models_dir, settings.data_dir)
    registry.log_unavailable()
    load = partial(load_runtime, permissions=settings.permissions)
    engine = Engine(registry, load=load, watch=observe(settings))
    broken = await asyncio.to_thread(engine.warm_all)
    show_loaded(package for package in registry if (package.name, package.version) not in broken)

    async def load_what_is_there_now() -> None:
        nonlocal broken
        broken = await asyncio.to_thread(engine.warm_all)
        engine.keep_only(registry.kept)
        show_loaded(package for package in registry if (package.name, package.version) not in broken)

    def time_limit_s(model: str, version: str) -> float:
        try:
            package = registry.resolve(model, version)
        except ModelNotFound:
            return _UNKNOWN_MODEL_LIMIT_S
        # The first task of a version that came a moment ago may find it not loaded yet.
        return package.timeout_s + (0.0 if engine.is_loaded(model, version) else _LOADING_LIMIT_S)

    async with AsyncExitStack() as stack:
        broker = await connect(settings.broker_url, name=instance, prefix=settings.broker_prefix)
        stack.push_async_callback(broker.close)

        def shadows_of(model: str) -> list[str]:
            return registry.traffic[model].shadow if model in registry.traffic else []

        shadows = Shadows(shadows_of, lambda model, version: time_limit_s(model, version) + _LOADING_LIMIT_S)
        stack.push_async_callback(shadows.close)
        worker = Worker(
            broker,
            engine,
            worker_id=instance,
            time_limit_s=time_limit_s,
            stopping=stopping,
            after_answer=shadows.offer,
        )

        async def check_broker() -> None:
            if not broker.connected:
                raise BrokerUnavailable

        def details() -> dict[str, Any]:
            return {
                "busy": worker.busy,
                "current_task": worker.current_task,
                "tasks_done": worker.tasks_done,
                "models": [
                    f"{package.name} {package.version}"
                    for package in registry
                    if (package.name, package.version) not in broken
                ],
                "models_stamp": registry.followed,
                "unavailable": {
                    **{package.name: package.reason for package in registry.unavailable},
                    **{f"{name} {version}": error.message for (name, version), error in broken.items()},
                },
            }

        operations = Operations(
            "ml_worker",
            instance=instance,
            version=foretell.__version__,
            checks={"broker": check_broker},
            needed_to_serve=["broker"],
            details=details,
        )
        http = asyncio.create_task(serve_http(operations, settings, stopping))
        consumer = await broker.consume(queues.tasks_queue(settings.worker_pool or None), prefetch=1)
        stack.push_async_callback(consumer.close)
        working = asyncio.create_task(worker.work(consumer))
        watching = asyncio.create_task(registry.watch(load_what_is_there_now))
        try:
            # Whichever ends first, by a stop or by an error, ends the other.
            await asyncio.wait({http, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.set()
            watching.cancel()
            await asyncio.gather(http, working)


def main() -> None:
    """Run a worker in the foreground, with its settings from the environment."""
    settings = WorkerSettings()
    run("ml_worker", settings, lambda instance, stopping: serve(settings, instance, stopping))

"""Assembles a worker. Any number of workers share a queue; each has its own id."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog

import foretell
from foretell.broker import health
from foretell.broker.connect import connect
from foretell.contracts import queues
from foretell.inference.engine import Engine
from foretell.inference.live import LiveRegistry
from foretell.inference.loading import Loading
from foretell.inference.measures import show_loaded
from foretell.inference.observing import observe
from foretell.inference.package import ModelPackage
from foretell.inference.registry import ModelNotFound
from foretell.inference.runtimes import Runtime, load_runtime
from foretell.kit.asgi import Operations
from foretell.kit.in_hand import InHand
from foretell.kit.lifecycle import run, serve_http
from foretell.services.worker.settings import WorkerSettings
from foretell.services.worker.shadows import Shadows
from foretell.services.worker.work import Worker

log = structlog.get_logger()

#: For a model that this worker does not have: the engine answers at once that it is unknown.
_UNKNOWN_MODEL_LIMIT_S = 10.0


async def serve(settings: WorkerSettings, instance: str, stopping: asyncio.Event) -> None:
    """Run a worker until `stopping` is set."""
    registry = LiveRegistry.installed(settings.models_dir, settings.data_dir)
    registry.log_unavailable()
    in_hand = InHand(settings.in_hand_path)

    def load(package: ModelPackage) -> Runtime:
        with in_hand.loading(f"{package.name} {package.version}"):
            return load_runtime(package, permissions=settings.permissions)

    engine = Engine(registry, load=load, watch=observe(settings))

    def time_limit_s(model: str, version: str) -> float:
        try:
            return registry.resolve(model, version).timeout_s
        except ModelNotFound:
            return _UNKNOWN_MODEL_LIMIT_S

    async with AsyncExitStack() as stack:
        broker = await connect(settings.broker_url, name=instance, prefix=settings.broker_prefix)
        stack.push_async_callback(broker.close)

        def shadows_of(model: str) -> list[str]:
            return registry.traffic[model].shadow if model in registry.traffic else []

        shadows = Shadows(shadows_of, time_limit_s)
        stack.push_async_callback(shadows.close)

        def models_changed() -> None:
            worker.models_changed()
            show_loaded(loading.ready)

        loading = Loading(engine, registry, changed=models_changed)
        worker = Worker(
            broker,
            engine,
            loading,
            worker_id=instance,
            time_limit_s=time_limit_s,
            pulse_s=settings.task_pulse_s,
            stopping=stopping,
            max_output_bytes=settings.max_output_bytes,
            in_hand=in_hand,
            after_answer=shadows.offer,
        )

        def details() -> dict[str, Any]:
            return {
                "busy": worker.busy,
                "current_task": worker.current_task,
                "tasks_done": worker.tasks_done,
                "tasks_postponed": worker.postponed,
                "models_stamp": registry.followed,
                **loading.details(),
            }

        operations = Operations(
            "ml_worker",
            instance=instance,
            version=foretell.__version__,
            checks={"broker": partial(health.check, broker)},
            needed_to_serve=["broker"],
            details=details,
            metrics_token=settings.metrics_token,
        )
        http = asyncio.create_task(serve_http(operations, settings, stopping))
        consumer = await broker.consume(queues.tasks_queue(settings.worker_pool or None), prefetch=1)
        stack.push_async_callback(consumer.close)
        working = asyncio.create_task(worker.work(consumer))
        following = asyncio.create_task(loading.follow())

        async def follow() -> asyncio.Task[None]:
            return asyncio.create_task(loading.follow())

        watching = asyncio.create_task(registry.watch(follow))
        try:
            # When one ends, by a stop or by an error, the other is ended, too.
            await asyncio.wait({http, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.set()
            for task in (watching, following):
                task.cancel()
            await asyncio.gather(http, working)


def main() -> None:
    """Run a worker in the foreground, with its settings from the environment."""
    settings = WorkerSettings()
    run("ml_worker", settings, lambda instance, stopping: serve(settings, instance, stopping))

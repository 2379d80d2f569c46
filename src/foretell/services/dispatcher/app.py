"""How the dispatcher is put together. Any number of them may run; each prediction is settled once all the same."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import foretell
from foretell.broker import health
from foretell.broker.connect import connect
from foretell.broker.port import Broker
from foretell.contracts import queues
from foretell.domain.migrations.run import migrate_when_possible
from foretell.domain.predictions.opening import open_store
from foretell.kit.asgi import Operations
from foretell.kit.clock_check import check_clock
from foretell.kit.database import Database
from foretell.kit.lifecycle import run, serve_http
from foretell.services.dispatcher.figures import Figures
from foretell.services.dispatcher.in_hand import InHand
from foretell.services.dispatcher.notifying.announcing import Announcer
from foretell.services.dispatcher.settings import DispatcherSettings
from foretell.services.dispatcher.settling import MAX_ENVELOPES, ResultsLoop, Settler
from foretell.services.dispatcher.sweeping import Sweeper


async def serve(settings: DispatcherSettings, instance: str, stopping: asyncio.Event) -> None:
    """Run a dispatcher until `stopping` is set."""
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url, application=instance, pool_size=3, pooler=settings.database_pooler)
        stack.push_async_callback(database.close)
        broker = await connect(settings.broker_url, name=instance, prefix=settings.broker_prefix)
        stack.push_async_callback(broker.close)

        operations = Operations(
            "dispatcher",
            instance=instance,
            version=foretell.__version__,
            checks={
                "broker": partial(health.check, broker),
                "database": database.ping,
                "clock": partial(check_clock, database),
            },
            needed_to_serve=["broker", "database"],
            metrics_token=settings.metrics_token,
        )
        http = asyncio.create_task(serve_http(operations, settings, stopping))
        working = asyncio.create_task(_work(settings, database, broker, stopping))
        try:
            # Whichever ends first, by a stop or by an error, ends the other.
            await asyncio.wait({http, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.set()
            await asyncio.gather(http, working)


async def _work(settings: DispatcherSettings, database: Database, broker: Broker, stopping: asyncio.Event) -> None:
    """Settle and sweep, as soon as the database is there and up to date."""
    await migrate_when_possible(database, stopping)
    announcer = Announcer(broker)
    store = open_store(database, announcer.told)
    settler = Settler(store, broker)
    said = broker.subscribe(queues.TASKS_KEPT)
    in_hand = InHand(settings.task_pulse_s, listening_since=lambda: said.since)
    listening = asyncio.create_task(in_hand.listen(said))
    announcing = asyncio.create_task(announcer.run())
    sweeper = Sweeper(database, store, broker, settler, in_hand, settings)
    consumer = await broker.consume(queues.RESULTS, prefetch=MAX_ENVELOPES)
    try:
        await asyncio.gather(
            ResultsLoop(consumer, settler, stopping).run(),
            sweeper.run(stopping),
            Figures(database, settings).run(stopping),
        )
    finally:
        for task in (listening, announcing):
            task.cancel()
        await asyncio.gather(listening, announcing, return_exceptions=True)
        await consumer.close()


def main() -> None:
    """Run the dispatcher in the foreground, with its settings from the environment."""
    settings = DispatcherSettings()
    run("dispatcher", settings, lambda instance, stopping: serve(settings, instance, stopping))

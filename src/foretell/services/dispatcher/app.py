"""Assembles the dispatcher. Any number of dispatchers may run; each prediction is still settled once."""

import asyncio
import ipaddress
from collections.abc import AsyncIterable
from contextlib import AsyncExitStack
from functools import partial

import foretell
from foretell.broker import health
from foretell.broker.connect import connect
from foretell.broker.port import Broker
from foretell.contracts import queues
from foretell.contracts.bot_secret import bot_secret_key
from foretell.domain.migrations.run import migrate_when_possible
from foretell.domain.predictions.opening import open_store
from foretell.kit.addresses import Addresses
from foretell.kit.asgi import Operations
from foretell.kit.clock_check import check_clock
from foretell.kit.database import Database
from foretell.kit.lifecycle import run, serve_http
from foretell.kit.outgoing import Outgoing
from foretell.services.dispatcher.figures import Figures
from foretell.services.dispatcher.in_hand import InHand
from foretell.services.dispatcher.notifying.announcing import Announcer
from foretell.services.dispatcher.notifying.delivering import Bot
from foretell.services.dispatcher.notifying.sender import Sender
from foretell.services.dispatcher.settings import DispatcherSettings
from foretell.services.dispatcher.settling import MAX_ENVELOPES, ResultsLoop, Settler
from foretell.services.dispatcher.sweeping import Sweeper
from foretell.services.dispatcher.usage import UsageSums

_EVERYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


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
            # When one ends, by a stop or by an error, the other is ended, too.
            await asyncio.wait({http, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.set()
            await asyncio.gather(http, working)


async def _work(settings: DispatcherSettings, database: Database, broker: Broker, stopping: asyncio.Event) -> None:
    """Settle and sweep as soon as the database is available and migrated."""
    await migrate_when_possible(database, stopping)
    sender = _sender(settings, database)
    announcer = Announcer(broker, sender.wake)
    store = open_store(database, announcer.announce)
    settler = Settler(store, broker)
    said = broker.subscribe(queues.TASKS_KEPT)
    in_hand = InHand(settings.task_pulse_s, listening_since=lambda: said.since)
    hearing = [
        asyncio.create_task(announcer.run()),
        asyncio.create_task(_wake(sender, broker.subscribe(queues.EVENTS_WRITTEN))),
        asyncio.create_task(in_hand.listen(said)),
    ]
    sweeper = Sweeper(database, store, broker, settler, in_hand, settings)
    consumer = await broker.consume(queues.RESULTS, prefetch=MAX_ENVELOPES)
    try:
        await asyncio.gather(
            ResultsLoop(consumer, settler, stopping).run(),
            sweeper.run(stopping),
            Figures(database, settings).run(stopping),
            UsageSums(database).run(stopping),
            sender.run(stopping),
        )
    finally:
        for task in hearing:
            task.cancel()
        await asyncio.gather(*hearing, return_exceptions=True)
        await consumer.close()


def _sender(settings: DispatcherSettings, database: Database) -> Sender:
    secret = settings.bot_secret.get_secret_value()
    return Sender(
        database,
        Outgoing(settings.addresses(), timeout_s=settings.webhook_timeout_s),
        # The operator has set the bot's address, so that every address is allowed.
        Outgoing(Addresses(_EVERYWHERE, needs_tls=False), timeout_s=settings.webhook_timeout_s),
        Bot(settings.bot_url, bot_secret_key(secret)) if secret else None,
        timeout_s=settings.webhook_timeout_s,
    )


async def _wake(sender: Sender, events: AsyncIterable[bytes]) -> None:
    """Wake the sender when other dispatchers or apps have written events."""
    async for _ in events:
        sender.wake()


def main() -> None:
    """Run the dispatcher in the foreground, with its settings from the environment."""
    settings = DispatcherSettings()
    run("dispatcher", settings, lambda instance, stopping: serve(settings, instance, stopping))

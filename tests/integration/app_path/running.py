"""The whole app in this process, on a port of its own, and the part of the dispatcher that ends predictions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import httpx
from tests.predictions import open_account

from foretell.broker.connect import connect
from foretell.broker.port import Broker, BrokerUnavailable
from foretell.contracts import queues
from foretell.contracts.messages import TaskEnvelope, decode_tasks
from foretell.domain.accounts.identity import User
from foretell.domain.accounts.tokens import AccessTokens
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Ending
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.services.app.app import serve
from foretell.services.app.settings import AppSettings, signing_secret
from foretell.services.dispatcher.settling import Settler

PATH = "/predictions/predict"
INPUT = {"carrier": "AA", "departure_time": "09:30", "distance_miles": 550, "weather_code": 1}
FEATURES = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
ORDER = {"model": "flight-delay", "input": INPUT}


@dataclass
class Running:
    """An app that runs, and what stands around it."""

    client: httpx.AsyncClient
    database: Database
    broker: Broker
    settings: AppSettings
    stopping: asyncio.Event

    async def open_account(self, credits: int = 100) -> tuple[UUID, dict[str, str]]:
        """A new user and the headers that prove it."""
        user_id = await open_account(self.database, credits=credits)
        return user_id, self.headers_of(user_id)

    def headers_of(self, user_id: UUID) -> dict[str, str]:
        user = User(id=user_id, username="somebody", role="user", active=True, created_at=now())
        token, _ = AccessTokens(signing_secret(self.settings), lifetime_s=900).issue(user)
        return {"Authorization": f"Bearer {token}"}

    async def tasks(self, envelopes: int = 1) -> list[TaskEnvelope]:
        """Take this many task envelopes, as a worker does."""
        consumer = await self.broker.consume(queues.TASKS, prefetch=64)
        taken: list[TaskEnvelope] = []
        while len(taken) < envelopes:
            deliveries = await consumer.receive(64)
            taken += [decode_tasks(delivery.body) for delivery in deliveries]
            await consumer.acknowledge(deliveries)
        await consumer.close()
        return taken

    async def end(self, endings: Sequence[Ending], *, tell: bool = True) -> None:
        """Settle as the dispatcher does; without `tell`, its event is lost."""
        store = open_store(self.database)
        if tell:
            await Settler(store, self.broker).settle(endings)
        else:
            await settle(store, endings)


@asynccontextmanager
async def running(settings: AppSettings) -> AsyncIterator[Running]:
    """`settings` must name a port."""
    stopping = asyncio.Event()
    serving = asyncio.create_task(serve(settings, "app-1", stopping))
    database = Database(settings.database_url, application="test")
    broker = await connect(settings.broker_url, name="test", prefix=settings.broker_prefix)
    base_url = f"http://127.0.0.1:{settings.port}"
    try:
        # No test waits for an answer that long; one that does would wait for ever.
        async with httpx.AsyncClient(base_url=base_url, timeout=60) as client:
            while not await _answers(client):
                assert not serving.done(), serving
                await asyncio.sleep(0.02)
            with suppress(BrokerUnavailable):
                # The app sees to it soon; what is asked before that is left to a sweep, and there is none here.
                await broker.ensure_queue(queues.TASKS)
            yield Running(client, database, broker, settings, stopping)
    finally:
        stopping.set()
        await serving
        await broker.close()
        await database.close()


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/live")).status_code == 200
    except httpx.TransportError:
        return False

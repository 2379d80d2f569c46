"""Announcements under load: one look, or one broker event, serves those of several settlements."""

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest

from foretell.broker.port import Broker
from foretell.contracts.messages import decode_told
from foretell.kit.addresses import Addresses
from foretell.kit.clock import uuid7
from foretell.kit.database import Database
from foretell.kit.outgoing import Outgoing
from foretell.services.dispatcher.notifying import announcing
from foretell.services.dispatcher.notifying import sender as sender_module
from foretell.services.dispatcher.notifying.announcing import Announcer
from foretell.services.dispatcher.notifying.sender import Sender

SETTLEMENTS = 60
#: So long that a slow machine announces all of them in a few of these pauses.
APART_S = 0.3


class Published:
    """A broker that keeps the users of each event."""

    def __init__(self) -> None:
        self.events: list[list[UUID]] = []

    async def publish_event(self, routing_key: str, body: bytes) -> None:
        self.events.append(list(decode_told(body).users))


async def test_one_broker_event_names_the_accounts_of_several_settlements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "_APART_S", APART_S)
    broker, users = Published(), [uuid7() for _ in range(SETTLEMENTS)]
    announcer = Announcer(cast(Broker, broker))
    running = asyncio.create_task(announcer.run())
    for user in users:
        announcer.announce([user])
        await asyncio.sleep(0)
    while sum(map(len, broker.events)) < SETTLEMENTS:
        await asyncio.sleep(0.01)
    running.cancel()
    # The first is published at once.
    assert broker.events[0] == users[:1]
    assert sorted(user for event in broker.events for user in event) == sorted(users)
    assert len(broker.events) < SETTLEMENTS / 2


async def test_one_look_takes_the_events_of_several_settlements(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, woken_after_a_look = 0, False

    async def take(sender: Any) -> int:
        nonlocal looks, woken_after_a_look
        looks += 1
        sender._found_events = True
        woken_after_a_look = False
        return 0

    monkeypatch.setattr(Sender, "_take", take)
    monkeypatch.setattr(sender_module, "_LOOKS_APART_S", APART_S)
    outgoing = Outgoing(Addresses([], needs_tls=True), timeout_s=1.0)
    sender = Sender(cast(Database, None), outgoing, outgoing, None, timeout_s=1.0)
    stopping = asyncio.Event()
    running = asyncio.create_task(sender.run(stopping))
    await asyncio.sleep(0)
    for _ in range(SETTLEMENTS):
        woken_after_a_look = True
        sender.wake()
        # Long enough for a look at once.
        for _ in range(5):
            await asyncio.sleep(0)
    assert looks < SETTLEMENTS / 2
    # What was announced in between is looked for.
    while woken_after_a_look:
        await asyncio.sleep(0.01)
    stopping.set()
    sender.wake()
    await running

"""Predictions that are published again, with what the broker refuses."""

from collections.abc import Mapping
from uuid import UUID

import pytest
from tests.integration.dispatcher.watched import Watched
from tests.predictions import accepted, submission

from foretell.contracts import queues
from foretell.contracts.messages import decode_tasks
from foretell.domain.predictions import sweeps
from foretell.domain.predictions.store import Store
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.services.dispatcher.republishing import Republisher
from foretell.services.dispatcher.settling import Settler

# The store is tested on both databases elsewhere.
pytestmark = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    ("headers", "attempts", "delivered"),
    [
        # The broker counts the earlier attempts.
        ({queues.EARLIER_ATTEMPTS: "2"}, 3, {}),
        ({queues.SECOND_ROUND: "1"}, 1, {queues.SECOND_ROUND: "1"}),
        (None, 1, {}),
    ],
)
async def test_tasks_of_a_refused_envelope_keep_its_headers(
    database: Database,
    store: Store,
    broker: Watched,
    ada: UUID,
    headers: Mapping[str, str] | None,
    attempts: int,
    delivered: Mapping[str, str],
) -> None:
    payload = b'"' + b"x" * 500 + b'"'
    ids = await accepted(store, *(submission(ada, age_s=60, payload=payload) for _ in range(3)))
    async with database.snapshot() as connection:
        queued = await sweeps.never_published(connection, before=now(), limit=10)
    assert {each.id for each in queued} == set(ids)
    # Each task fits alone; the envelope of all three does not.
    broker.most_bytes = 1000
    await Republisher(database, store, broker, Settler(store, broker)).publish(queued, "interrupted", headers)
    consumer = await broker.consume(queues.TASKS, prefetch=10)
    deliveries = await consumer.receive(10)
    assert [[task.id for task in decode_tasks(each.body).tasks] for each in deliveries] == [
        [each.id] for each in queued
    ]
    assert [(each.attempts, each.headers) for each in deliveries] == [(attempts, delivered)] * 3
    await consumer.acknowledge(deliveries)
    await consumer.close()

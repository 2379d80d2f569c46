"""A dispatcher whose clock is wrong dates nothing by it, where the database has a clock of its own."""

from datetime import timedelta
from uuid import UUID

import pytest
from tests.integration.dispatcher.watched import Watched
from tests.predictions import accepted, submission, view_of

from foretell.contracts import queues
from foretell.contracts.messages import decode_tasks
from foretell.domain.predictions import sweeps
from foretell.domain.predictions.store import Store
from foretell.kit import clock
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.services.dispatcher.republishing import Republisher
from foretell.services.dispatcher.settling import Settler

# SQLite has no clock of its own.
pytestmark = pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)


async def test_what_it_publishes_is_dated_by_the_database(
    database: Database, store: Store, broker: Watched, ada: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = now()
    (accepted_id,) = await accepted(store, submission(ada, age_s=60))
    unix_ns = clock.unix_ns
    monkeypatch.setattr(clock, "unix_ns", lambda: unix_ns() + 172_800 * 10**9)
    assert now() > right + timedelta(days=1)
    async with database.snapshot() as connection:
        queued = await sweeps.never_published(connection, before=now(), limit=10)
    await Republisher(database, store, broker, Settler(store, broker)).publish(queued, "forgotten")
    published_at = (await view_of(database, ada, accepted_id)).published_at
    assert published_at is not None
    assert right - timedelta(minutes=5) < published_at < right + timedelta(hours=1)
    consumer = await broker.consume(queues.TASKS, prefetch=1)
    (delivery,) = await consumer.receive(1)
    assert decode_tasks(delivery.body).published_at == published_at
    await consumer.acknowledge([delivery])
    await consumer.close()

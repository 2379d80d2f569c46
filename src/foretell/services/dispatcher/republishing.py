"""Publishes queued predictions again, from the database."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog

from foretell.broker.port import Broker, MessageRefused
from foretell.contracts.envelopes import pack
from foretell.contracts.messages import INPUT_TOO_LARGE
from foretell.domain.predictions.store import Ending, Store
from foretell.domain.predictions.sweeps import Queued
from foretell.kit.clock import uuid7
from foretell.kit.database import Database, server_time
from foretell.services.dispatcher.measures import SWEPT
from foretell.services.dispatcher.settling import Settler

log = structlog.get_logger()


class Republisher:
    """Publishes the predictions that a sweep found and marks them as published."""

    def __init__(self, database: Database, store: Store, broker: Broker, settler: Settler) -> None:
        self._database = database
        self._store = store
        self._broker = broker
        self._settler = settler

    async def publish(self, found: Sequence[Queued], reason: str, headers: Mapping[str, str] | None = None) -> None:
        """Publish these in envelopes; a task that the broker refuses alone fails. Raises `BrokerUnavailable`."""
        if not found:
            return
        SWEPT.labels(reason).inc(len(found))
        log.info("predictions_swept", reason=reason, count=len(found))
        async with self._database.snapshot() as connection:
            # Ours may be wrong, and predictions would be dated into the future.
            published_at = await server_time(connection)
        for parcel in pack(found, published_at):
            try:
                await self._broker.publish(parcel.queue, parcel.body, message_id=uuid7().hex, headers=headers)
            except MessageRefused as error:
                log.warning("tasks_refused", queue=parcel.queue, tasks=len(parcel.ids), reason=error.message)
                refused = set(parcel.ids)
                await self._publish_apart([each for each in found if each.id in refused], published_at, headers)
            else:
                await self._store.mark_published(parcel.ids, published_at)

    async def _publish_apart(
        self, refused: Sequence[Queued], published_at: datetime, headers: Mapping[str, str] | None
    ) -> None:
        """Publish each of these alone; a task that the broker refuses fails."""
        for queued in refused:
            (parcel,) = pack([queued], published_at)
            try:
                await self._broker.publish(parcel.queue, parcel.body, message_id=uuid7().hex, headers=headers)
            except MessageRefused:
                await self._settler.settle([Ending(queued.id, error=INPUT_TOO_LARGE)])
            else:
                await self._store.mark_published(parcel.ids, published_at)

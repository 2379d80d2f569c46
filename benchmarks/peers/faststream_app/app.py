# mypy: disable-error-code="import-not-found,untyped-decorator,misc"
"""The task as a FastStream application: acknowledged after the result is committed to PostgreSQL, one row at a time."""

import logging
import os
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from fast_depends.msgspec import MsgSpecSerializer
from faststream import AckPolicy, ContextRepo, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from benchmarks.peers import flight

STORE = "INSERT INTO results (task_id, prediction, probability) VALUES ($1, $2, $3) ON CONFLICT (task_id) DO NOTHING"

#: Rows on their way to PostgreSQL at once, in each of the two processes.
CONNECTIONS = 16
#: As many messages as keep those connections busy, and as many again on their way.
PREFETCH = 2 * CONNECTIONS

QUEUE = RabbitQueue(os.environ["PEER_QUEUE"], queue_type=QueueType(os.environ["PEER_QUEUE_TYPE"]), durable=True)


class FlightTask(msgspec.Struct):
    """One prediction to make."""

    task_id: str
    carrier: str
    dep_hour: int
    distance: float
    weather_delay: float


# At the level INFO FastStream logs two lines for each message.
broker = RabbitBroker(
    os.environ["PEER_BROKER_URL"],
    default_channel=Channel(prefetch_count=PREFETCH),
    serializer=MsgSpecSerializer(use_fastdepends_errors=False),
    log_level=logging.DEBUG,
)
app = FastStream(broker)


class State:
    """What a worker process holds."""

    pool: Any
    model: flight.FlightModel


@app.on_startup
async def open_state(context: ContextRepo) -> None:
    """Load the model and open the pool before messages come."""
    State.model = flight.FlightModel(Path(os.environ["PEER_MODEL"]))
    State.pool = await asyncpg.create_pool(os.environ["PEER_DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS)


@app.after_shutdown
async def close_state() -> None:
    """Close the pool after the last message."""
    await State.pool.close()


@broker.subscriber(QUEUE, ack_policy=AckPolicy.NACK_ON_ERROR, no_reply=True)
async def predict(task: FlightTask) -> None:
    """Predict one flight and store the result; the message is acknowledged when this returns."""
    prediction = State.model.predict(msgspec.structs.asdict(task))
    await State.pool.execute(STORE, task.task_id, prediction["prediction"], prediction["probability"])

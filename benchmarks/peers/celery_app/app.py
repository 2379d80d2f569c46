# mypy: disable-error-code="import-not-found,untyped-decorator"
"""The task as a Celery application: acknowledged late, persistent, confirmed, results in PostgreSQL."""

import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_process_init
from kombu import Exchange, Queue

from benchmarks.peers import flight

QUEUE = os.environ["PEER_QUEUE"]

app = Celery(
    "flight_delay",
    broker=os.environ["PEER_BROKER_URL"],
    backend="db+" + os.environ["PEER_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1),
)
app.conf.update(
    task_queues=[
        Queue(
            QUEUE,
            Exchange(QUEUE, type="direct", durable=True),
            routing_key=QUEUE,
            queue_arguments={"x-queue-type": os.environ["PEER_QUEUE_TYPE"]},
        )
    ],
    task_default_queue=QUEUE,
    task_default_exchange=QUEUE,
    task_default_routing_key=QUEUE,
    task_default_delivery_mode="persistent",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    # Confirmed: `delay` returns when RabbitMQ has stored the message.
    broker_transport_options={"confirm_publish": True},
    # "Optimizing" in Celery's guide: as many broker connections as threads that publish, and for many short tasks a
    # prefetch of 64 or 128 for each process.
    broker_pool_limit=int(os.environ["PEER_CLIENTS"]),
    worker_prefetch_multiplier=64,
    # Nobody watches these workers; what nobody reads need not be sent.
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)

_model: flight.FlightModel | None = None


@worker_process_init.connect  # type: ignore[untyped-decorator,unused-ignore]
def load_model(**_: object) -> None:
    """Load the model once in each worker process."""
    global _model
    _model = flight.FlightModel(Path(os.environ["PEER_MODEL"]))


@app.task(name="predict")
def predict(features: flight.Features) -> flight.Prediction:
    """Predict one flight; Celery stores what this returns."""
    assert _model is not None
    return _model.predict(features)

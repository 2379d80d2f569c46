"""Names and attributes of the spans of a prediction, the same in every process.

Attributes have the names of OpenTelemetry's semantic conventions, if there are any. They never contain values of an
input.
"""

from uuid import UUID

#: The attributes of a span.
About = dict[str, str | int]

INTAKE = "intake"
RUN = "worker run"
SETTLE = "settle"


def publish(queue: str) -> str:
    """The name of the span for publishing a task to `queue`."""
    return f"publish {queue}"


def of_prediction(prediction_id: UUID, model: str, version: str) -> About:
    """Attributes of the prediction."""
    return {
        "foretell.prediction.id": str(prediction_id),
        "foretell.model.name": model,
        "foretell.model.version": version,
    }


def of_publish(queue: str) -> About:
    """Attributes of publishing a task."""
    return {
        "messaging.destination.name": queue,
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
    }


def of_run(queue: str, worker_id: str, tasks: int) -> About:
    """Attributes of a run of a task from `queue`, with the number of tasks in its envelope."""
    return {
        "messaging.destination.name": queue,
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        **of_batch(tasks),
        "foretell.worker.id": worker_id,
    }


def of_batch(items: int) -> About:
    """Attributes of a batch: its size."""
    return {"messaging.batch.message_count": items}


def of_settle(queue: str) -> About:
    """Attributes of settling a result, or a dead task, from `queue`."""
    return {
        "messaging.destination.name": queue,
        "messaging.operation.name": "settle",
        "messaging.operation.type": "process",
    }

"""What the spans of a prediction are called, and what they say: the same in every process.

Names of attributes are those of OpenTelemetry's semantic conventions where these have one. Never a value of an input.
"""

from uuid import UUID

#: What a span says.
About = dict[str, str | int]

INTAKE = "intake"
RUN = "worker run"
SETTLE = "settle"


def publish(queue: str) -> str:
    """The name of the span of a task on its way to `queue`."""
    return f"publish {queue}"


def of_prediction(prediction_id: UUID, model: str, version: str) -> About:
    """Which prediction it is."""
    return {
        "foretell.prediction.id": str(prediction_id),
        "foretell.model.name": model,
        "foretell.model.version": version,
    }


def of_publish(queue: str) -> About:
    """A task goes to its queue."""
    return {
        "messaging.destination.name": queue,
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
    }


def of_run(queue: str, worker_id: str, tasks: int) -> About:
    """A worker is at a task from `queue`, one of so many in its envelope."""
    return {
        "messaging.destination.name": queue,
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        **of_batch(tasks),
        "foretell.worker.id": worker_id,
    }


def of_batch(items: int) -> About:
    """It was one of so many that were done together."""
    return {"messaging.batch.message_count": items}


def of_settle(queue: str) -> About:
    """A dispatcher is at a result, or at a task that nobody survived, from `queue`."""
    return {
        "messaging.destination.name": queue,
        "messaging.operation.name": "settle",
        "messaging.operation.type": "process",
    }

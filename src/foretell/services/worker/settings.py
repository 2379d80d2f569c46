"""Settings of a worker."""

from pydantic import Field

from foretell.inference.settings import InferenceSettings


class WorkerSettings(InferenceSettings):
    """What a worker can be told."""

    #: An answer of a model that is larger than this fails with `output_too_large`, and its credits come back.
    max_output_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    #: The pool whose tasks this worker takes; empty is the common one, `ml_tasks`.
    worker_pool: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]*)?$")
    #: How often a worker says which tasks it keeps for long, the first time after as long; the dispatchers must be told
    #: the same. After four times this, a run is acknowledged: before RabbitMQ's `consumer_timeout`, of which it
    #: supports none below a minute.
    task_pulse_s: float = Field(default=5.0, gt=0, le=10)

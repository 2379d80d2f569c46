"""Settings of a worker."""

from pydantic import Field

from foretell.inference.settings import InferenceSettings


class WorkerSettings(InferenceSettings):
    """Settings of a worker."""

    #: A prediction whose output is larger than this fails with `output_too_large`, and its credits are released.
    max_output_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    #: The pool whose tasks this worker takes; empty for the common queue, `ml_tasks`.
    worker_pool: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]*)?$")
    #: How often a worker reports its long tasks, the first time after this long. The dispatchers need the same value.
    #: After four times this, a run is acknowledged, so that RabbitMQ's `consumer_timeout` (at least a minute) has not
    #: passed.
    task_pulse_s: float = Field(default=5.0, gt=0, le=10)

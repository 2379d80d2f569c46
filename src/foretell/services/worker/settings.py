"""Settings of a worker."""

from pydantic import Field

from foretell.inference.settings import InferenceSettings


class WorkerSettings(InferenceSettings):
    """What a worker can be told."""

    #: The pool whose tasks this worker takes; empty is the common one, `ml_tasks`.
    worker_pool: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]*)?$")

"""Settings of every service that runs models."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic_settings import NoDecode

from foretell.inference.runtimes import Permissions
from foretell.kit.settings import ServiceSettings


def _split(value: Any) -> Any:
    """`a, b` from the environment as a list; a list as it is."""
    return [part.strip().lower() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class InferenceSettings(ServiceSettings):
    """Settings of a service that runs models."""

    #: sha256 of the pickles (joblib, MLflow) that may be loaded, separated by commas. Loading one runs its code.
    allowed_pickles: Annotated[
        frozenset[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]], NoDecode, BeforeValidator(_split)
    ] = frozenset()
    #: How many rows a second of each model version are counted for drift, if monitoring is used; 0: none.
    observed_rows_per_s: int = Field(default=50, ge=0, le=10_000)

    @property
    def permissions(self) -> Permissions:
        """What packages are allowed to load."""
        return Permissions(allowed_pickles=frozenset(self.allowed_pickles))

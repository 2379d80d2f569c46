"""Settings of the monitoring service."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from foretell.services.monitoring.alerts.settings import AlertSettings

#: Bounds the bodies of this service.
BODY_SETTING = "FORETELL_MONITORING_MAX_BODY_BYTES"
_SHORTEST_TOKEN = 16
_SCHEMA = "monitoring"


def _split(value: Any) -> Any:
    """`a, b` from the environment as a list; a list as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class MonitoringSettings(AlertSettings):
    """What the monitoring service can be told."""

    port: int = Field(default=8003, ge=0, le=65535)
    #: Where records are kept: `postgresql://…` or `sqlite:///PATH`. Without one: beside the product's tables if those
    #: are in PostgreSQL, else a file of its own in `data_dir`.
    monitoring_database_url: str = ""
    #: How long records are kept, and how much room they may take: the oldest go first.
    monitoring_keep_days: float = Field(default=14.0, gt=0, le=3650)
    monitoring_max_bytes: int = Field(default=2 * 1024**3, ge=1024**2)
    #: The windows in which what models are asked is compared with what they were trained on, in seconds, with commas.
    monitoring_drift_window_s: Annotated[
        tuple[Annotated[float, Field(ge=60, le=90 * 86_400)], ...],
        NoDecode,
        BeforeValidator(_split),
        Field(min_length=1, max_length=5),
    ] = (3_600.0, 86_400.0)
    #: How often they are compared.
    monitoring_drift_every_s: float = Field(default=60.0, ge=0.1, le=86_400)
    #: Names, with commas, by which it may be asked though it wants no token, besides addresses and localhost: those of
    #: a network, which no web page can have for its own.
    monitoring_own_names: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    #: Bounds of one request: its size, and how many records a list may have.
    monitoring_max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    monitoring_max_records: int = Field(default=50_000, ge=1)
    #: How many bytes of requests may wait to be stored before senders must wait, and are told to come back later.
    monitoring_max_waiting_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)

    @model_validator(mode="after")
    def _beside_the_product(self) -> Self:
        if not self.monitoring_database_url:
            server = self.database_url.startswith(("postgresql://", "postgres://"))
            url = self.database_url if server else f"sqlite:///{Path(self.data_dir) / 'monitoring.db'}"
            object.__setattr__(self, "monitoring_database_url", url)
        return self

    @model_validator(mode="after")
    def _token_is_no_guess(self) -> Self:
        """Whoever sends or reads must show the token. Without one everybody may: not in production."""
        token = self.monitoring_token.get_secret_value()
        if self.production:
            self.check_secret("monitoring_token", token, _SHORTEST_TOKEN)
        return self

    @property
    def schema_name(self) -> str:
        """In which schema of PostgreSQL the tables are: never among the product's."""
        return _SCHEMA

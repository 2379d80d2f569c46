"""Settings of the monitoring service."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from foretell.services.monitoring.alerts.settings import AlertSettings

#: The setting that limits the request bodies of this service.
BODY_SETTING = "FORETELL_MONITORING_MAX_BODY_BYTES"
_SHORTEST_TOKEN = 16
_SCHEMA = "monitoring"


def _split(value: Any) -> Any:
    """Split `a, b` from the environment; leave a list unchanged."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class MonitoringSettings(AlertSettings):
    """Settings of the monitoring service."""

    port: int = Field(default=8003, ge=0, le=65535)
    #: The database of records: `postgresql://…` or `sqlite:///PATH`. Default: the product's database if that is
    #: PostgreSQL, else a separate file in `data_dir`.
    monitoring_database_url: str = ""
    #: How long records are kept, and how many bytes they may take; the oldest are deleted first.
    monitoring_keep_days: float = Field(default=14.0, gt=0, le=3650)
    monitoring_max_bytes: int = Field(default=2 * 1024**3, ge=1024**2)
    #: The windows of the drift detection, in seconds, separated by commas.
    monitoring_drift_window_s: Annotated[
        tuple[Annotated[float, Field(ge=60, le=90 * 86_400)], ...],
        NoDecode,
        BeforeValidator(_split),
        Field(min_length=1, max_length=5),
    ] = (3_600.0, 86_400.0)
    #: How often drift is computed.
    monitoring_drift_every_s: float = Field(default=60.0, ge=0.1, le=86_400)
    #: Host names, separated by commas, that requests may use when no token is set, in addition to IP addresses and
    #: localhost. They must be names of a private network, which no web page can point at another address.
    monitoring_own_names: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    #: Limits of one request: the size of its body, and the records in a list.
    monitoring_max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    monitoring_max_records: int = Field(default=50_000, ge=1)
    #: Bytes of requests that may wait to be stored. Beyond that, senders wait for a short time and then get 503.
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
        """Require a strong token in production, since without one everyone can send and read records."""
        token = self.monitoring_token.get_secret_value()
        if self.production:
            self.check_secret("monitoring_token", token, _SHORTEST_TOKEN)
        return self

    @property
    def schema_name(self) -> str:
        """The PostgreSQL schema of the tables, which is never the product's schema."""
        return _SCHEMA

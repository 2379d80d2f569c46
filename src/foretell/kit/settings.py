"""Settings from the environment (`FORETELL_*`), one frozen class per service, made once and handed in."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from foretell.kit.errors import Misconfigured

#: What examples, templates and tired people write where a secret should stand.
_PLACEHOLDERS = ("change", "secret", "example", "default", "foretell", "insecure", "password", "test", "your")
#: A random secret of sixteen characters or more has at least so many different ones.
_FEWEST_CHARACTERS = 8


class ServiceSettings(BaseSettings):
    """What every service knows. Field `database_url` is read from `FORETELL_DATABASE_URL`, and so on."""

    model_config = SettingsConfigDict(env_prefix="FORETELL_", frozen=True, extra="ignore", env_ignore_empty=True)

    environment: Literal["development", "production"] = "development"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: Where the embedded database and broker live, and other files of this installation.
    data_dir: Path = Path("data")
    #: `postgresql://…` or `sqlite:///PATH`; without one, the embedded database in `data_dir`.
    database_url: str = ""
    #: What stands between us and PostgreSQL: nothing, or PgBouncer or the like in transaction mode.
    database_pooler: Literal["", "transaction"] = ""
    #: `amqp://…` or `sqlite:///PATH`; without one, the embedded broker in `data_dir`.
    broker_url: str = ""
    #: Put before every queue and exchange name, so that installations can share one RabbitMQ.
    broker_prefix: str = ""
    #: Where this service answers HTTP; 0 lets the system choose a free port.
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    #: Model packages besides those that ship, one folder each; without it, `models` in `data_dir`.
    models_dir: Path | None = None
    #: Which instance this is, unique among the running ones; made up when not given.
    instance: str = ""
    #: How long a stop may take before what is left is cut off.
    stop_grace_s: float = Field(default=20.0, gt=0)
    #: After so long without a turn of its event loop a process is ended, so that it is replaced; 0: never.
    standstill_limit_s: float = Field(default=60.0, ge=0)
    #: How often the local engine had to do that with this instance (it says so itself).
    standstills: int = Field(default=0, ge=0)
    #: What the local engine says of the process that this one replaces, if that one crashed: how it ended (a signal's
    #: name or `status 1`) and what it had in hand.
    last_end: str = ""
    last_in_hand: str = ""
    #: Where this process says what it has in hand.
    in_hand_path: Path | None = None
    #: Bounds of what a connection may take before anything is known of it (see kit/connection_bounds.py).
    max_head_bytes: int = Field(default=64 * 1024, ge=1024)
    head_timeout_s: float = Field(default=20.0, gt=0)
    body_timeout_s: float = Field(default=120.0, gt=0)
    max_connections: int = Field(default=4096, ge=1)
    max_bytes_under_way: int = Field(default=32 * 1024 * 1024, ge=1024 * 1024)
    #: Where logs and heartbeats are sent, `http://HOST:PORT`; nothing is sent without it.
    monitoring_url: str = ""
    #: What the monitoring service wants to see; empty if it wants nothing.
    monitoring_token: SecretStr = SecretStr("")
    #: How many bytes of log lines wait in memory while the monitoring service is away, at most.
    monitoring_buffer_bytes: int = Field(default=8 * 1024 * 1024, ge=64 * 1024)

    @field_validator("monitoring_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        parts = urlsplit(url)
        # `port` raises ValueError when it is none.
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0):
            raise ValueError("must be http://HOST:PORT or https://HOST")
        return url

    @model_validator(mode="after")
    def _embedded_by_default(self) -> Self:
        # `object.__setattr__` because the model is frozen for everybody else.
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{self.data_dir / 'foretell.db'}")
        if not self.broker_url:
            object.__setattr__(self, "broker_url", f"sqlite:///{self.data_dir / 'broker.db'}")
        return self

    @property
    def production(self) -> bool:
        """Whether default secrets and default passwords are refused."""
        return self.environment == "production"

    @property
    def metrics_token(self) -> str | None:
        """What whoever reads `/metrics` must show; None when everybody may. An empty one is nobody's."""
        return self.monitoring_token.get_secret_value() if self.production else None

    def check_secret(self, setting: str, secret: str, shortest: int) -> None:
        """Refuse a secret that is short, not ASCII, or one that examples have or a person made up. Raises."""
        if len(secret) < shortest:
            raise self.refuse(setting, f"has {len(secret)} characters; it needs at least {shortest}.")
        if not secret.isascii():
            raise self.refuse(setting, "must be ASCII.")
        if is_guessable(secret):
            raise self.refuse(setting, "is a placeholder or easy to guess; set a random one of your own.")

    def refuse(self, setting: str, why: str) -> Misconfigured:
        """The error that names one setting by its environment variable."""
        return Misconfigured(f"FORETELL_{setting.upper()}: {why}")


def is_guessable(secret: str) -> bool:
    """Whether a secret is one that examples have or a person made up."""
    return len(set(secret)) < _FEWEST_CHARACTERS or any(word in secret.lower() for word in _PLACEHOLDERS)

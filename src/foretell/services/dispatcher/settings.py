"""Settings of the dispatcher."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from foretell.contracts.bot_secret import check_bot_secret
from foretell.kit.outgoing_settings import OutgoingSettings


class DispatcherSettings(OutgoingSettings):
    """What the dispatcher can be told. All times in seconds."""

    #: How often the sweeps look for what was left behind.
    sweep_interval_s: float = Field(default=1.0, gt=0)
    #: A prediction that is not marked as published this long after it was accepted is published here.
    publish_after_s: float = Field(default=5.0, gt=0)
    #: A published prediction that has not ended after this long, while its queue is empty, is published again; the
    #: next time after twice as long, and so on.
    lost_after_s: float = Field(default=30.0, gt=0)
    #: How often workers say which tasks they keep for long. What one kept is published again after three times this
    #: without a word.
    task_pulse_s: float = Field(default=5.0, gt=0, le=10)
    #: How often, at most, the figures of the operator are looked up: what waits, what was earned. On a large database
    #: they are looked up less often, so that they take a hundredth of one connection's time.
    figures_interval_s: float = Field(default=5.0, gt=0)
    #: How often, at most, the books are audited; the first time after a tenth of it.
    audit_interval_s: float = Field(default=600.0, gt=0)
    #: Several pools of workers, whose dead letters are looked after too.
    worker_pools: tuple[str, ...] = ()
    #: How long a webhook may take to answer.
    webhook_timeout_s: float = Field(default=15.0, gt=0, le=18.0)
    #: Where the bot takes what Telegram's chats are to be told, and the secret that signs it; without one, nothing is.
    bot_url: str = "http://127.0.0.1:8004"
    bot_secret: SecretStr = SecretStr("")

    @field_validator("bot_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("must be http://HOST:PORT or https://HOST")
        return url

    @model_validator(mode="after")
    def _bot_secret_is_one(self) -> Self:
        check_bot_secret(self, self.bot_secret.get_secret_value(), needed=False)
        return self

"""Settings of the dispatcher."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from foretell.contracts.bot_secret import check_bot_secret
from foretell.kit.outgoing_settings import OutgoingSettings


class DispatcherSettings(OutgoingSettings):
    """Settings of the dispatcher. All times are in seconds."""

    #: How often the sweeps run.
    sweep_interval_s: float = Field(default=1.0, gt=0)
    #: The dispatcher publishes a prediction that is not marked as published this long after it was accepted.
    publish_after_s: float = Field(default=5.0, gt=0)
    #: A published prediction that has not ended after this long, while its queue is empty, is published again. The
    #: delay doubles each time.
    lost_after_s: float = Field(default=30.0, gt=0)
    #: How often workers report their long tasks. A task whose worker has not reported it for three times this is
    #: published again.
    task_pulse_s: float = Field(default=5.0, gt=0, le=10)
    #: How often, at most, the operator's figures are read: queued predictions, revenue. On a large database they are
    #: read less often, so that they take a hundredth of one connection's time.
    figures_interval_s: float = Field(default=5.0, gt=0)
    #: How often, at most, the ledger is audited; the first time after a tenth of it.
    audit_interval_s: float = Field(default=600.0, gt=0)
    #: The worker pools, whose queues the dispatcher also sweeps.
    worker_pools: tuple[str, ...] = ()
    #: How long a webhook may take to answer.
    webhook_timeout_s: float = Field(default=15.0, gt=0, le=18.0)
    #: The bot's URL, and the secret that signs notifications to it. Without a secret, nothing is sent to the bot.
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

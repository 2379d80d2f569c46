"""Settings of alerting."""

import base64
import binascii
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from foretell.kit.settings import ServiceSettings

_SECRET_PREFIX = "whsec_"  # noqa: S105 - how such secrets begin, none itself


def _split(value: Any) -> Any:
    """Split `a, b` from the environment; leave a list unchanged."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class AlertSettings(ServiceSettings):
    """The rules, and the channels of notifications. Lists are separated by commas."""

    #: A file of rules that override the shipped ones.
    alert_rules: Path | None = None
    #: The webhooks for alerts, and the secret that signs them (`whsec_` and base64; without one they are not signed).
    #: The operator sets these addresses, so private ones are allowed.
    alert_webhook_urls: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = ()
    alert_webhook_secret: SecretStr = SecretStr("")
    #: The chat to which the bot of `TELEGRAM_TOKEN` sends alerts.
    alert_telegram_chat: str = ""
    telegram_token: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("telegram_token", "TELEGRAM_TOKEN")
    )
    #: The Bot API server. The bot's variable is read, too, because both use the same server.
    telegram_api_url: str = Field(
        default="https://api.telegram.org",
        validation_alias=AliasChoices("telegram_api_url", "FORETELL_TELEGRAM_API_URL", "TELEGRAM_API_URL"),
    )
    alert_language: Literal["en", "ru"] = "en"
    #: For each subject of a rule, at most one pair of notifications (firing, resolved) in this many seconds.
    alert_damping_s: float = Field(default=300.0, ge=0, le=86_400)
    alert_messages_per_hour: int = Field(default=30, ge=1, le=3600)
    #: For this long after the start, alerts that may only be caused by the start do not fire.
    alert_start_grace_s: float = Field(default=60.0, ge=0, le=3600)

    @model_validator(mode="after")
    def _addresses_can_be_reached(self) -> Self:
        # The message does not contain the URL, whose path is often a secret.
        for number, url in enumerate(self.alert_webhook_urls, 1):
            if not _is_http(url.get_secret_value()):
                raise self.refuse("alert_webhook_urls", f"number {number} is no http://HOST or https://HOST address.")
        if not _is_http(self.telegram_api_url):
            raise self.refuse("telegram_api_url", "this is no http://HOST or https://HOST address.")
        return self

    @model_validator(mode="after")
    def _secret_is_one(self) -> Self:
        secret = self.alert_webhook_secret.get_secret_value()
        if secret and webhook_key(secret) is None:
            raise self.refuse("alert_webhook_secret", f"this must be {_SECRET_PREFIX} and the key in base64.")
        return self


def webhook_key(secret: str) -> bytes | None:
    """The key in a Standard Webhooks secret; None if it is invalid."""
    if not secret.startswith(_SECRET_PREFIX):
        return None
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True) or None
    except binascii.Error:
        return None


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False

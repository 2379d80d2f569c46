"""What alerting can be told."""

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
    """`a, b` from the environment as a list; a list as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class AlertSettings(ServiceSettings):
    """Rules, and to whom it is told what they find. Lists are written with commas."""

    #: A file of rules over those that ship.
    alert_rules: Path | None = None
    #: Where alerts are sent, and the secret that signs them (`whsec_` and base64; without one they are not signed).
    #: These are the operator's own addresses, so private ones are fine.
    alert_webhook_urls: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = ()
    alert_webhook_secret: SecretStr = SecretStr("")
    #: The chat that the bot of `TELEGRAM_TOKEN` writes to.
    alert_telegram_chat: str = ""
    telegram_token: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("telegram_token", "TELEGRAM_TOKEN")
    )
    #: Under the name that the bot knows it by, too: a server of one's own is everybody's.
    telegram_api_url: str = Field(
        default="https://api.telegram.org",
        validation_alias=AliasChoices("telegram_api_url", "FORETELL_TELEGRAM_API_URL", "TELEGRAM_API_URL"),
    )
    alert_language: Literal["en", "ru"] = "en"
    #: Of one subject of a rule, people are told that it fires, and that it is over, once in so many seconds.
    alert_damping_s: float = Field(default=300.0, ge=0, le=86_400)
    alert_messages_per_hour: int = Field(default=30, ge=1, le=3600)
    #: How long after the start nothing fires that may only be on its way up.
    alert_start_grace_s: float = Field(default=60.0, ge=0, le=3600)

    @model_validator(mode="after")
    def _addresses_can_be_reached(self) -> Self:
        # Never the address itself in the message: often its path is the secret.
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
    """The key in a secret of Standard Webhooks; None if it is none."""
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

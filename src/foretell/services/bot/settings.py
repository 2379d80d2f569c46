"""Settings of the bot."""

import re
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from foretell.contracts.bot_secret import check_bot_secret
from foretell.kit.settings import ServiceSettings

_TOKEN = re.compile(r"[0-9]+:[A-Za-z0-9_-]+")


def _offers(value: Any) -> Any:
    """Parse `500:250,2000:900` from the environment into pairs of credits and stars."""
    if not isinstance(value, str):
        return value
    pairs = []
    for part in filter(None, (each.strip() for each in value.split(","))):
        credits, separator, stars = part.partition(":")
        if not separator:
            raise ValueError(f"{part!r} should be CREDITS:STARS")
        pairs.append((credits.strip(), stars.strip()))
    return pairs


#: Telegram allows up to 10,000 stars for one invoice.
_Offer = tuple[Annotated[int, Field(ge=1, le=1_000_000_000)], Annotated[int, Field(ge=1, le=10_000)]]


class BotSettings(ServiceSettings):
    """Settings of the bot."""

    port: int = Field(default=8004, ge=0, le=65535)
    telegram_token: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("telegram_token", "TELEGRAM_TOKEN")
    )
    telegram_api_url: str = Field(
        default="https://api.telegram.org",
        validation_alias=AliasChoices("telegram_api_url", "TELEGRAM_API_URL", "FORETELL_TELEGRAM_API_URL"),
    )
    #: The shared secret of bot, app and dispatcher: `whsec_` and base64.
    bot_secret: SecretStr = SecretStr("")
    app_url: str = "http://127.0.0.1:8000"
    #: Credits that are sold for Telegram Stars: `CREDITS:STARS`, separated by commas.
    stars_offers: Annotated[tuple[_Offer, ...], NoDecode, BeforeValidator(_offers), Field(max_length=20)] = ()
    #: The public URL (`https://…`) of the bot's webhook; without it, the bot polls for updates.
    bot_webhook_url: str = ""
    #: Telegram's limits: messages per second of this bot, and for one chat.
    bot_messages_per_second: float = Field(default=30.0, gt=0, le=10_000)
    bot_chat_messages_per_second: float = Field(default=1.0, gt=0, le=10_000)
    #: How long one poll waits for updates, in seconds.
    bot_poll_s: int = Field(default=25, ge=0, le=50)
    #: How often the bot checks open predictions and payments, in seconds.
    bot_look_interval_s: float = Field(default=5.0, gt=0)
    #: After this time without an event for a prediction, the bot asks the app for it, in seconds.
    bot_look_after_s: float = Field(default=15.0, gt=0)
    #: How long calls of the app are retried before the person gets an error, in seconds.
    bot_patience_s: float = Field(default=6.0, ge=0)

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        token = self.telegram_token.get_secret_value()
        if token and not _TOKEN.fullmatch(token):
            raise ValueError("TELEGRAM_TOKEN is no token of a bot: it looks like 123456:AAbb… (from @BotFather).")
        check_bot_secret(self, self.bot_secret.get_secret_value(), needed=bool(token))
        for name in ("telegram_api_url", "app_url"):
            parts = urlsplit(getattr(self, name))
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise self.refuse(name, "this is no http://HOST or https://HOST address.")
        if self.bot_webhook_url and urlsplit(self.bot_webhook_url).scheme != "https":
            raise self.refuse("bot_webhook_url", "Telegram takes https:// addresses only.")
        return self

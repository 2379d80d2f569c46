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
    """`500:250,2000:900` from the environment, as pairs of credits and stars."""
    if not isinstance(value, str):
        return value
    pairs = []
    for part in filter(None, (each.strip() for each in value.split(","))):
        credits, separator, stars = part.partition(":")
        if not separator:
            raise ValueError(f"{part!r} should be CREDITS:STARS")
        pairs.append((credits.strip(), stars.strip()))
    return pairs


#: Telegram takes up to 10,000 stars at once.
_Offer = tuple[Annotated[int, Field(ge=1, le=1_000_000_000)], Annotated[int, Field(ge=1, le=10_000)]]


class BotSettings(ServiceSettings):
    """What the bot can be told."""

    port: int = Field(default=8004, ge=0, le=65535)
    telegram_token: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("telegram_token", "TELEGRAM_TOKEN")
    )
    telegram_api_url: str = Field(
        default="https://api.telegram.org",
        validation_alias=AliasChoices("telegram_api_url", "TELEGRAM_API_URL", "FORETELL_TELEGRAM_API_URL"),
    )
    #: What bot, app and dispatcher of an installation know one another by: `whsec_` and base64.
    bot_secret: SecretStr = SecretStr("")
    app_url: str = "http://127.0.0.1:8000"
    #: What may be bought with Telegram Stars: `CREDITS:STARS`, with commas.
    stars_offers: Annotated[tuple[_Offer, ...], NoDecode, BeforeValidator(_offers), Field(max_length=20)] = ()
    #: Where Telegram reaches us, `https://…`, if it is to bring updates itself; without it, the bot fetches them.
    bot_webhook_url: str = ""
    #: How many messages a second Telegram takes of this bot, and how many for one chat.
    bot_messages_per_second: float = Field(default=30.0, gt=0, le=10_000)
    bot_chat_messages_per_second: float = Field(default=1.0, gt=0, le=10_000)
    #: How long one request for updates waits for some, in seconds.
    bot_poll_s: int = Field(default=25, ge=0, le=50)
    #: How often the bot looks after what it has heard nothing of.
    bot_look_interval_s: float = Field(default=5.0, gt=0)
    #: After so long without a word of a result, the bot asks for it, in seconds.
    bot_look_after_s: float = Field(default=15.0, gt=0)
    #: How long the app may take before somebody is told that it does not answer.
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

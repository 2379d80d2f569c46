"""Settings of the app, and the secret that signs its tokens."""

import ipaddress
import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from foretell.contracts.bot_secret import check_bot_secret
from foretell.domain.accounts.lifetime import Lifetime
from foretell.inference.arriving import UploadSettings
from foretell.inference.package import ModelPackage
from foretell.kit.errors import Misconfigured
from foretell.kit.outgoing_settings import OutgoingSettings

_SHORTEST_SECRET = 32


def _split(value: Any) -> Any:
    """Split `a, b` from the environment; leave a list unchanged."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_pairs(value: Any) -> Any:
    """Parse `sentiment=2, flight-delay=1` from the environment into a mapping."""
    if not isinstance(value, str):
        return value
    pairs = {}
    for part in _split(value):
        name, separator, credits = part.partition("=")
        if not separator:
            raise ValueError(f"{part!r} should be MODEL=CREDITS")
        pairs[name.strip()] = credits.strip()
    return pairs


def _without_at(value: Any) -> Any:
    return value.removeprefix("@") if isinstance(value, str) else value


class AppSettings(OutgoingSettings, UploadSettings):
    """Settings of the app. Lists are separated by commas: `FORETELL_PRICES=sentiment=2,flight-delay=1`."""

    port: int = Field(default=8000, ge=0, le=65535)
    #: Signs access tokens. All app processes of an installation need the same one.
    secret_key: SecretStr = SecretStr("")
    registration_open: bool = True
    #: Accounts that one client address may create in a day; 0: no limit.
    signups_per_address: int = Field(default=100, ge=0)
    #: Accounts that all Telegram chats together may create in a day; 0: no limit.
    telegram_signups: int = Field(default=1000, ge=0)
    #: Webhook tests and redeliveries that one account may request in a minute; 0: no limit.
    webhook_sends_per_minute: int = Field(default=30, ge=0)
    #: Exports that one account may request in a minute; 0: no limit.
    exports_per_minute: int = Field(default=10, ge=0)
    #: Credits of a new account.
    signup_credits: int = Field(default=100, ge=0, le=1_000_000_000)
    #: Prices in credits by model, in place of those in the models' manifests.
    prices: Annotated[dict[str, Annotated[int, Field(ge=0, le=1_000_000)]], NoDecode, BeforeValidator(_split_pairs)] = (
        Field(default_factory=dict)
    )
    #: Authenticates the bot of this installation (see contracts/bot_secret.py).
    bot_secret: SecretStr = SecretStr("")
    #: Whether this installation has a bot, according to this process's environment.
    bot_is_on: Annotated[bool, BeforeValidator(bool)] = Field(default=False, validation_alias="TELEGRAM_TOKEN")
    #: The bot's name, which overrides the one that the bot reports.
    telegram_bot_name: Annotated[str, BeforeValidator(_without_at)] = Field(default="", pattern=r"^[A-Za-z0-9_]{0,64}$")
    access_token_lifetime_s: int = Field(default=900, ge=1, le=86_400)
    refresh_token_lifetime_s: int = Field(default=30 * 86_400, ge=1, le=366 * 86_400)
    #: How long a browser session lasts without use, and at most.
    session_idle_s: int = Field(default=14 * 86_400, ge=60, le=366 * 86_400)
    session_lifetime_s: int = Field(default=90 * 86_400, ge=60, le=366 * 86_400)
    #: The model service that checks and installs packages that operators upload; empty: this process does it.
    package_service_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    #: The token for that model service.
    admin_token: SecretStr = SecretStr("")
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024)
    #: A prediction that has not ended after this time fails with `expired`, and its credits are released.
    prediction_expires_s: float = Field(default=3600.0, gt=0)
    #: Addresses or networks of the reverse proxies whose X-Forwarded-For is trusted.
    trusted_proxies: Annotated[
        tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], NoDecode, BeforeValidator(_split)
    ] = ()
    #: Origins of other web pages that may call this API from a browser.
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()

    @model_validator(mode="after")
    def _production_needs_its_own_secret(self) -> Self:
        secret = self.secret_key.get_secret_value()
        if "*" in self.cors_origins:
            raise self.refuse("cors_origins", "name the origins; * would let every web page call in a user's name.")
        if self.production and not secret:
            raise self.refuse(
                "secret_key",
                'must be set in production. Make one: python -c "import secrets; print(secrets.token_hex())"',
            )
        if secret and (self.production or len(secret) < _SHORTEST_SECRET):
            self.check_secret("secret_key", secret, _SHORTEST_SECRET)
        return self

    @model_validator(mode="after")
    def _bot_needs_a_secret(self) -> Self:
        needed = self.production and self.bot_is_on
        check_bot_secret(self, self.bot_secret.get_secret_value(), needed=needed)
        return self

    @property
    def session_lifetime(self) -> Lifetime:
        """How long sessions last."""
        return Lifetime(self.session_idle_s, self.session_lifetime_s)

    def price_credits_of(self, package: ModelPackage) -> int:
        """The price of one prediction: the one in `prices`, else the manifest's."""
        return self.prices.get(package.name, package.price_credits)


def signing_secret(settings: AppSettings) -> str:
    """The secret that signs tokens: the configured one, else the one in `data_dir/secret_key`, which is created.

    Processes that start at the same time use the same one. Raises `Misconfigured`.
    """
    given = settings.secret_key.get_secret_value()
    if given:
        return given
    file = settings.data_dir / "secret_key"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            _place_new_secret(file)
        secret = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} can't be made or read ({error}). Set FORETELL_SECRET_KEY instead.") from error
    if len(secret) < _SHORTEST_SECRET:
        raise Misconfigured(
            f"{file} holds no secret of at least {_SHORTEST_SECRET} characters. Delete it: a new one is made."
        )
    return secret


def _place_new_secret(file: Path) -> None:
    # `link` is atomic, and fails if another process was first; then the other secret is used.
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            return
    finally:
        draft.unlink()

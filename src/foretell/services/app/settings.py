"""Settings of the app, and the secret that signs its tokens."""

import ipaddress
import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from foretell.contracts.bot_secret import check_bot_secret
from foretell.domain.accounts.sessions import Lifetime
from foretell.inference.arriving import UploadSettings
from foretell.inference.package import ModelPackage
from foretell.kit.errors import Misconfigured
from foretell.kit.outgoing_settings import OutgoingSettings

_SHORTEST_SECRET = 32


def _split(value: Any) -> Any:
    """`a, b` from the environment as a list; a list as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_pairs(value: Any) -> Any:
    """`sentiment=2, flight-delay=1` from the environment as a mapping."""
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
    """What the app knows. Lists are written with commas: `FORETELL_PRICES=sentiment=2,flight-delay=1`."""

    port: int = Field(default=8000, ge=0, le=65535)
    #: Signs access tokens. All app processes of an installation need the same.
    secret_key: SecretStr = SecretStr("")
    registration_open: bool = True
    #: How many accounts one address may ask for in a day; 0: as many as it likes.
    signups_per_address: int = Field(default=100, ge=0)
    #: How many accounts all chats of Telegram together may ask for in a day; 0: as many as they like.
    telegram_signups: int = Field(default=1000, ge=0)
    #: How many tests and redeliveries one account may ask for in a minute; 0: as many as it likes.
    webhook_sends_per_minute: int = Field(default=30, ge=0)
    #: How many exports one account may ask for in a minute; 0: as many as it likes.
    exports_per_minute: int = Field(default=10, ge=0)
    #: What a new user gets.
    signup_credits: int = Field(default=100, ge=0, le=1_000_000_000)
    #: Prices in credits by model, in place of those in the models' manifests.
    prices: Annotated[dict[str, Annotated[int, Field(ge=0, le=1_000_000)]], NoDecode, BeforeValidator(_split_pairs)] = (
        Field(default_factory=dict)
    )
    #: By it the bot proves that it is this installation's own (see contracts/bot_secret.py).
    bot_secret: SecretStr = SecretStr("")
    #: Whether there is a bot, as far as this process knows.
    bot_is_on: Annotated[bool, BeforeValidator(bool)] = Field(default=False, validation_alias="TELEGRAM_TOKEN")
    #: What the bot is called, in place of what it says itself.
    telegram_bot_name: Annotated[str, BeforeValidator(_without_at)] = Field(default="", pattern=r"^[A-Za-z0-9_]{0,64}$")
    access_token_lifetime_s: int = Field(default=900, ge=1, le=86_400)
    refresh_token_lifetime_s: int = Field(default=30 * 86_400, ge=1, le=366 * 86_400)
    #: How long a session of a browser lasts without use, and in any case.
    session_idle_s: int = Field(default=14 * 86_400, ge=60, le=366 * 86_400)
    session_lifetime_s: int = Field(default=90 * 86_400, ge=60, le=366 * 86_400)
    #: A model service that checks and installs the packages that operators send, where this process can't.
    package_service_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    #: What that model service wants to see.
    admin_token: SecretStr = SecretStr("")
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024)
    #: A prediction that nobody took within this time fails with `expired`, and its credits come back.
    prediction_expires_s: float = Field(default=3600.0, gt=0)
    #: Addresses or networks of the reverse proxies whose X-Forwarded-For is believed.
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
        """What one prediction of this model costs: the operator's price, else the manifest's."""
        return self.prices.get(package.name, package.price_credits)


def signing_secret(settings: AppSettings) -> str:
    """The secret that signs tokens: the one that was set, else one made once and kept in `data_dir/secret_key`.

    Several processes that start together agree on one. Raises `Misconfigured`.
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
    # A link appears whole or not at all, and fails when another process was first; then theirs counts.
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

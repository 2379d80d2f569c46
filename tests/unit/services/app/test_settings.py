"""What the app refuses to start with, and the secret that it makes for itself."""

import base64
import ipaddress
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from pydantic import ValidationError

from foretell.contracts.bot_secret import bot_secret_key, new_bot_secret
from foretell.inference.registry import Registry, shipped_folder
from foretell.kit.errors import Misconfigured
from foretell.services.app.settings import AppSettings, signing_secret

GOOD_SECRET = "9f2c4e8a7b1d3056e4f8a2c6d0b9e7135c8f4a2e6b0d9173"


def test_a_promised_port_and_grant_are_the_defaults() -> None:
    settings = AppSettings()
    assert (settings.port, settings.signup_credits, settings.max_body_bytes) == (8000, 100, 1024 * 1024)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "short",
        "a" * 64,
        "change-me-change-me-change-me-change-me",
        "this-is-the-default-key-of-some-example",
        "foretell-foretell-foretell-foretell-foretell",
    ],
)
def test_production_refuses_a_secret_that_is_none(secret: str) -> None:
    with pytest.raises(Misconfigured, match="FORETELL_SECRET_KEY") as refusal:
        AppSettings(environment="production", secret_key=secret)
    assert not secret or secret not in refusal.value.message


def test_production_takes_a_random_secret_and_shows_it_to_nobody() -> None:
    settings = AppSettings(environment="production", secret_key=GOOD_SECRET)
    assert signing_secret(settings) == GOOD_SECRET
    assert GOOD_SECRET not in repr(settings)


def test_development_refuses_a_secret_that_is_too_short() -> None:
    with pytest.raises(Misconfigured, match="at least 32"):
        AppSettings(secret_key="short")


BOT_SECRETS = {
    "no prefix": base64.b64encode(b"0123456789abcdef0123456789abcdef").decode(),
    "no base64": "whsec_" + "?" * 44,
    "short": "whsec_" + base64.b64encode(b"0123456789abcdef").decode(),
    "long": "whsec_" + base64.b64encode(b"0123456789abcdef" * 5).decode(),
}
GUESSABLE_BOT_SECRETS = {
    "an example": "whsec_" + "changeme" * 5 + "mmm=",
    "one byte": "whsec_" + base64.b64encode(b"a" * 32).decode(),
    "words": "whsec_" + base64.b64encode(b"change-me-now-before-you-start-it").decode(),
}


@pytest.mark.parametrize("secret", BOT_SECRETS.values(), ids=BOT_SECRETS)
def test_a_secret_of_the_bot_has_the_form_of_standard_webhooks(secret: str) -> None:
    with pytest.raises(Misconfigured, match="FORETELL_BOT_SECRET: must be whsec_") as refusal:
        AppSettings(bot_secret=secret)
    assert secret not in refusal.value.message


@pytest.mark.parametrize("secret", GUESSABLE_BOT_SECRETS.values(), ids=GUESSABLE_BOT_SECRETS)
def test_production_refuses_a_bots_secret_that_can_be_guessed(secret: str) -> None:
    assert AppSettings(bot_secret=secret).bot_secret.get_secret_value() == secret
    with pytest.raises(Misconfigured, match="FORETELL_BOT_SECRET"):
        AppSettings(environment="production", secret_key=GOOD_SECRET, bot_secret=secret)


def test_production_wants_a_secret_where_there_is_a_bot(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not AppSettings(environment="production", secret_key=GOOD_SECRET).bot_is_on
    monkeypatch.setenv("TELEGRAM_TOKEN", "123:abc")
    assert AppSettings().bot_is_on
    with pytest.raises(Misconfigured, match="FORETELL_BOT_SECRET"):
        AppSettings(environment="production", secret_key=GOOD_SECRET)
    settings = AppSettings(environment="production", secret_key=GOOD_SECRET, bot_secret=new_bot_secret())
    assert "123:abc" not in repr(settings)
    assert settings.bot_secret.get_secret_value() not in repr(settings)


def test_a_secret_that_is_made_is_taken_everywhere() -> None:
    made = {new_bot_secret() for _ in range(100)}
    assert len(made) == 100
    for secret in made:
        assert len(bot_secret_key(secret)) == 32
        AppSettings(environment="production", secret_key=GOOD_SECRET, bot_secret=secret)


def test_lists_and_prices_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETELL_PRICES", "flight-delay=3, sentiment = 0")
    monkeypatch.setenv("FORETELL_TRUSTED_PROXIES", "10.0.0.0/8, ::1")
    monkeypatch.setenv("FORETELL_CORS_ORIGINS", "https://one.example,https://two.example")
    settings = AppSettings()
    assert settings.prices == {"flight-delay": 3, "sentiment": 0}
    assert settings.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))
    assert settings.cors_origins == ("https://one.example", "https://two.example")


@pytest.mark.parametrize("prices", ["flight-delay", "flight-delay=-1", "flight-delay=cheap", "flight-delay=1.5"])
def test_a_price_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, prices: str) -> None:
    monkeypatch.setenv("FORETELL_PRICES", prices)
    with pytest.raises(ValidationError, match="prices"):
        AppSettings()


def test_every_origin_at_once_is_refused() -> None:
    with pytest.raises(Misconfigured, match="FORETELL_CORS_ORIGINS"):
        AppSettings(cors_origins=("*",))


def test_the_operators_price_goes_before_the_manifests() -> None:
    package = Registry.discover(shipped_folder()).get("flight-delay")
    assert AppSettings().price_credits_of(package) == package.price_credits
    assert AppSettings(prices={"flight-delay": 9}).price_credits_of(package) == 9


def test_the_made_secret_is_kept_and_readable_by_nobody_else(tmp_path: Path) -> None:
    settings = AppSettings(data_dir=tmp_path / "data")
    secret = signing_secret(settings)
    assert len(secret) >= 32
    assert signing_secret(settings) == secret
    assert (tmp_path / "data" / "secret_key").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["secret_key"]


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    for number in range(10):
        settings = AppSettings(data_dir=tmp_path / str(number))
        together = Barrier(8)

        def make(settings: AppSettings = settings, together: Barrier = together) -> str:
            together.wait()
            return signing_secret(settings)

        with ThreadPoolExecutor(8) as threads:
            secrets = {future.result() for future in [threads.submit(make) for _ in range(8)]}
        assert len(secrets) == 1


def test_a_secret_file_that_is_empty_is_explained(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("")
    with pytest.raises(Misconfigured, match="Delete it"):
        signing_secret(AppSettings(data_dir=tmp_path))


def test_a_data_dir_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="FORETELL_SECRET_KEY"):
        signing_secret(AppSettings(data_dir=tmp_path / "file" / "data"))

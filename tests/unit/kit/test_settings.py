"""Settings come from the environment, and never change."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from foretell.kit.errors import Misconfigured
from foretell.kit.settings import ServiceSettings


def test_without_anything_it_is_the_embedded_pair() -> None:
    settings = ServiceSettings(data_dir=Path("/srv/foretell"))
    assert settings.database_url == "sqlite:////srv/foretell/foretell.db"
    assert settings.broker_url == "sqlite:////srv/foretell/broker.db"
    assert not settings.production


def test_the_environment_names_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETELL_DATABASE_URL", "postgresql://somewhere/else")
    monkeypatch.setenv("FORETELL_BROKER_URL", "amqp://somewhere/")
    monkeypatch.setenv("FORETELL_PORT", "8123")
    monkeypatch.setenv("FORETELL_ENVIRONMENT", "production")
    monkeypatch.setenv("FORETELL_STOP_GRACE_S", "1.5")
    settings = ServiceSettings()
    assert settings.database_url == "postgresql://somewhere/else"
    assert settings.broker_url == "amqp://somewhere/"
    assert (settings.port, settings.stop_grace_s, settings.production) == (8123, 1.5, True)


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "PORT", "MODELS_DIR", "LOG_LEVEL"):
        monkeypatch.setenv(f"FORETELL_{name}", "")
    settings = ServiceSettings()
    assert settings.database_url.startswith("sqlite:///")
    assert (settings.port, settings.models_dir, settings.log_level) == (0, None, "info")


def test_variables_of_others_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETELL_OF_ANOTHER_SERVICE", "1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://not/ours")
    assert "not/ours" not in ServiceSettings().database_url


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "70000"), ("PORT", "http"), ("ENVIRONMENT", "prod"), ("LOG_LEVEL", "loud"), ("STOP_GRACE_S", "0")]
    + [("MONITORING_URL", url) for url in ("somewhere:8003", "ftp://somewhere", "http://", "http://a:0", "http://a:x")],
)
def test_a_value_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FORETELL_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        ServiceSettings()


def test_they_are_frozen() -> None:
    with pytest.raises(ValidationError):
        ServiceSettings().port = 1


def test_a_refusal_names_the_variable() -> None:
    refusal = ServiceSettings().refuse("secret_key", "is too short.")
    assert isinstance(refusal, Misconfigured)
    assert str(refusal) == "FORETELL_SECRET_KEY: is too short."


@pytest.mark.parametrize(
    "url", ["", "http://127.0.0.1:8003", "https://monitoring.example/foretell", "http://[::1]:8003"]
)
def test_an_address_of_the_monitoring_service_is_kept_and_its_token_is_not_shown(url: str) -> None:
    settings = ServiceSettings(monitoring_url=url, monitoring_token="hunter2")
    assert settings.monitoring_url == url
    assert settings.monitoring_token.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)

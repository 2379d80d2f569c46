"""What alerting can be told, and what it refuses."""

from typing import Any

import pytest

from foretell.kit.errors import Misconfigured
from foretell.services.monitoring.alerts.channels import channels_of
from foretell.services.monitoring.alerts.settings import AlertSettings, webhook_key

_TOKEN = "123456:AAF-token-of-a-bot"


def settings_of(monkeypatch: pytest.MonkeyPatch, **environment: str) -> AlertSettings:
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return AlertSettings()


def test_by_default_only_the_log_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELEGRAM_TOKEN", raising=False)
    assert channels_of(AlertSettings()) == {}


def test_channels_come_from_the_environment_and_their_names_tell_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(
        monkeypatch,
        FORETELL_ALERT_WEBHOOK_URLS="https://hooks.example/services/SECRET-1, https://hooks.example/services/SECRET-2",
        FORETELL_ALERT_WEBHOOK_SECRET="whsec_c2VjcmV0",
        FORETELL_ALERT_TELEGRAM_CHAT="-100123",
        TELEGRAM_TOKEN=_TOKEN,
    )
    names = list(channels_of(settings))
    assert len(names) == 3
    assert all(name.startswith("webhook hooks.example:443 ") for name in names[:2])
    assert names[2] == "telegram"
    shown = f"{names} {settings!r}"
    assert not any(secret in shown for secret in ("SECRET", "c2VjcmV0", _TOKEN))
    assert list(channels_of(settings)) == names


def test_a_chat_without_a_token_is_no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELEGRAM_TOKEN", raising=False)
    assert channels_of(settings_of(monkeypatch, FORETELL_ALERT_TELEGRAM_CHAT="1")) == {}


@pytest.mark.parametrize(
    "environment",
    [
        {"FORETELL_ALERT_WEBHOOK_URLS": "http://good.example, ftp://SECRET.example/x"},
        {"FORETELL_ALERT_WEBHOOK_URLS": "http:///SECRET"},
        {"FORETELL_ALERT_WEBHOOK_URLS": "http://SECRET:99999/"},
        {"FORETELL_ALERT_WEBHOOK_URLS": "SECRET"},
        {"FORETELL_TELEGRAM_API_URL": "api.SECRET.org"},
        {"TELEGRAM_API_URL": "api.SECRET.org"},
        {"FORETELL_ALERT_WEBHOOK_SECRET": "SECRET"},
        {"FORETELL_ALERT_WEBHOOK_SECRET": "whsec_"},
        {"FORETELL_ALERT_WEBHOOK_SECRET": "whsec_SECRET!"},
    ],
)
def test_what_cannot_work_is_refused_by_name_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    with pytest.raises(Misconfigured) as refused:
        settings_of(monkeypatch, **environment)
    assert next(iter(environment)) in refused.value.message
    assert "SECRET" not in refused.value.message.replace("WEBHOOK_SECRET", "")


@pytest.mark.parametrize(("secret", "key"), [("whsec_c2VjcmV0", b"secret"), ("c2VjcmV0", None), ("whsec_*", None)])
def test_a_secret_holds_its_key_in_base64(secret: str, key: Any) -> None:
    assert webhook_key(secret) == key

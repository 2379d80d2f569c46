"""Secrets of an installation in containers."""

import json
import stat
from pathlib import Path

import pytest

from foretell.kit.errors import Misconfigured
from foretell.kit.setting_files import take_from_files
from foretell.local.container_secrets import write_secrets
from foretell.services.app.settings import AppSettings

SERVICES = (
    "app", "dispatcher", "ml-worker", "model-service", "preprocessing-service", "monitoring-service", "bot", "nginx",
    "postgres", "rabbitmq", "prometheus", "grafana",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for service in SERVICES:
        (tmp_path / service).mkdir()
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, but RabbitMQ's, whose hashes have new salts each time."""
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "definitions.json"
    }


def test_secrets_are_made_once(folder: Path) -> None:
    made = write_secrets(folder, {})
    assert {"secret_key", "postgres_password", "rabbitmq_worker"} <= set(made)
    before = contents(folder)
    assert write_secrets(folder, {}) == []
    assert contents(folder) == before


def test_no_two_are_alike(folder: Path) -> None:
    write_secrets(folder, {"FORETELL_ENVIRONMENT": "production"})
    kept = [file.read_text() for file in (folder / "kept").iterdir()]
    assert len(set(kept)) == len(kept) > 10


def test_a_service_sees_its_own_and_nothing_else(folder: Path) -> None:
    write_secrets(folder, {"FORETELL_ENVIRONMENT": "production"})
    names = {service: {file.name for file in (folder / service).iterdir()} for service in SERVICES}
    assert names["ml-worker"] == {"FORETELL_BROKER_URL", "FORETELL_MONITORING_TOKEN"}
    assert names["preprocessing-service"] == {"FORETELL_MONITORING_TOKEN"}
    assert names["bot"] == {"FORETELL_BOT_SECRET", "FORETELL_MONITORING_TOKEN"}
    assert "FORETELL_SECRET_KEY" not in names["dispatcher"]
    # The one of the tables of money is not the one of logs.
    product = (folder / "app" / "FORETELL_DATABASE_URL").read_text()
    records = (folder / "monitoring-service" / "FORETELL_MONITORING_DATABASE_URL").read_text()
    assert product.startswith("postgresql://foretell:")
    assert records.startswith("postgresql://foretell_monitoring:")
    assert product.split("@")[0] not in records
    for service in SERVICES:
        for file in (folder / service).iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o444
    for file in (folder / "kept").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o400


def test_several_servers_stand_in_the_addresses(folder: Path) -> None:
    several = {"FORETELL_POSTGRES_HOSTS": "one:5432,two:5432", "FORETELL_RABBITMQ_HOSTS": "a:5672,b:5672"}
    write_secrets(folder, several)
    url = (folder / "app" / "FORETELL_DATABASE_URL").read_text().strip()
    assert url.endswith("@one:5432,two:5432/foretell?target_session_attrs=read-write")
    assert (folder / "ml-worker" / "FORETELL_BROKER_URL").read_text().strip().endswith("@a:5672,b:5672/")
    write_secrets(folder, {})
    assert (folder / "app" / "FORETELL_DATABASE_URL").read_text().strip() == (
        url.replace("one:5432,two:5432", "postgres:5432").partition("?")[0]
    )


def test_the_app_can_start_with_them_in_production(folder: Path) -> None:
    write_secrets(folder, {"FORETELL_ENVIRONMENT": "production"})
    environment = {"FORETELL_SECRETS_DIR": str(folder / "app")}
    take_from_files(environment)
    settings = AppSettings(
        environment="production",
        secret_key=environment["FORETELL_SECRET_KEY"],  # type: ignore[arg-type]
        bot_secret=environment["FORETELL_BOT_SECRET"],  # type: ignore[arg-type]
        TELEGRAM_TOKEN="set",  # type: ignore[call-arg]
    )
    assert settings.bot_is_on


def test_development_has_no_token_for_monitoring_and_production_keeps_one(folder: Path) -> None:
    token = folder / "monitoring-service" / "FORETELL_MONITORING_TOKEN"
    write_secrets(folder, {})
    assert not token.exists()
    assert (folder / "prometheus" / "monitoring-token").read_text() == ""
    write_secrets(folder, {"FORETELL_ENVIRONMENT": "production"})
    first = token.read_text()
    assert (folder / "prometheus" / "monitoring-token").read_text() == first
    # Tried as development once, it is gone; later it is the same again.
    write_secrets(folder, {})
    assert not token.exists()
    write_secrets(folder, {"FORETELL_ENVIRONMENT": "production"})
    assert token.read_text() == first


def test_what_the_operator_gives_counts_and_stays(folder: Path) -> None:
    write_secrets(folder, {})
    key = "3b1f9c27" * 8
    write_secrets(folder, {"FORETELL_SECRET_KEY": key, "FORETELL_DATABASE_URL": "postgresql://me@elsewhere/db"})
    assert (folder / "app" / "FORETELL_SECRET_KEY").read_text() == f"{key}\n"
    assert (folder / "dispatcher" / "FORETELL_DATABASE_URL").read_text() == "postgresql://me@elsewhere/db\n"
    write_secrets(folder, {})
    assert (folder / "app" / "FORETELL_SECRET_KEY").read_text() == f"{key}\n"


@pytest.mark.parametrize(
    ("setting", "value", "environment"),
    [
        ("FORETELL_SECRET_KEY", "short", "development"),
        ("FORETELL_SECRET_KEY", "change-me-" * 5, "production"),
        ("FORETELL_MONITORING_TOKEN", "a" * 40, "production"),
        ("FORETELL_ADMIN_TOKEN", "with spaces 1234567", "development"),
        ("FORETELL_BOT_SECRET", "no secret of this form", "development"),
        ("FORETELL_GRAFANA_PASSWORD", "foretell-password-1", "production"),
    ],
)
def test_a_bad_one_is_refused_and_not_told(folder: Path, setting: str, value: str, environment: str) -> None:
    with pytest.raises(Misconfigured, match=setting) as refused:
        write_secrets(folder, {setting: value, "FORETELL_ENVIRONMENT": environment})
    assert value not in refused.value.message


def test_rabbitmq_is_told_of_guest_in_development_only(folder: Path) -> None:
    tags = []
    for environment in ("development", "production"):
        write_secrets(folder, {"FORETELL_ENVIRONMENT": environment})
        said = json.loads((folder / "rabbitmq" / "definitions.json").read_text())
        tags.append(next(user["tags"] for user in said["users"] if user["name"] == "guest"))
    assert tags == [["monitoring"], []]

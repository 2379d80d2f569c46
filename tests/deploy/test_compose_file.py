"""docker-compose.yaml promises what docs promise. No engine is needed; where a client is, Compose reads it, too."""

import json
import os
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from foretell.local.container_secrets import write_secrets
from foretell.local.services import SERVICES

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
ALL: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {service.compose_name or service.name: service for service in SERVICES}
#: What CONTRACTS says is published, and by which setting one moves it.
PUBLISHED = {
    "nginx": {"FORETELL_HTTP_PORT": 80, "FORETELL_HTTPS_PORT": 443},
    "model-service": {"FORETELL_MODEL_PORT": 8001},
    "preprocessing-service": {"FORETELL_PREPROCESSING_PORT": 8002},
    "monitoring-service": {"FORETELL_MONITORING_PORT": 8003},
    "rabbitmq": {"FORETELL_RABBITMQ_MANAGEMENT_PORT": 15672},
    "prometheus": {"FORETELL_PROMETHEUS_PORT": 9090},
    "grafana": {"FORETELL_GRAFANA_PORT": 3000},
    "kibana": {"FORETELL_KIBANA_PORT": 5601},
}
PORT = re.compile(r"\$\{FORETELL_PUBLISH_ADDRESS:-127\.0\.0\.1\}:\$\{(\w+):-(\d+)\}:(\d+)")


def settings_of(image: str) -> type[BaseSettings]:
    """The class of settings of a service."""
    module = import_module(OURS[image].module.removesuffix(".app") + ".settings")
    (found,) = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, BaseSettings) and each.__module__ == module.__name__
    ]
    return found


def names_of(settings: type[BaseSettings]) -> set[str]:
    """The variables of the environment that these settings are read from."""
    names = set()
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        found = [alias] if isinstance(alias, str) else alias.choices if isinstance(alias, AliasChoices) else []
        names |= {f"FORETELL_{name.upper()}", *map(str, found)}
    return names


def test_the_names_that_users_know() -> None:
    promised = {*OURS, "postgres", "rabbitmq", "nginx", "prometheus", "grafana"}
    assert promised <= ALL.keys()
    # In no profile: `docker compose up -d` starts them.
    assert all("profiles" not in ALL[name] for name in promised - {"prometheus", "grafana"})
    assert ALL["prometheus"]["profiles"] == ALL["grafana"]["profiles"] == ["monitoring"]


def test_three_workers_and_nothing_that_keeps_them_from_being_more() -> None:
    assert ALL["ml-worker"]["deploy"]["replicas"] == 3
    for name in ("ml-worker", "app", "dispatcher"):
        assert "ports" not in ALL[name]
    assert not [name for name, service in ALL.items() if "container_name" in service]


def test_what_is_published_where() -> None:
    found: dict[str, dict[str, int]] = {}
    for name, service in ALL.items():
        for port in service.get("ports", []):
            match = PORT.fullmatch(port)
            assert match, f"{name}: {port}"
            assert match[2] == match[3]
            found.setdefault(name, {})[match[1]] = int(match[2])
    assert found == PUBLISHED


@pytest.mark.parametrize("name", OURS)
def test_ours_may_do_little_and_stop_in_peace(name: str) -> None:
    service = ALL[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    # 20 s of FORETELL_STOP_GRACE_S, and 8.
    assert int(service["stop_grace_period"].removesuffix("s")) > 28
    assert service["healthcheck"]["start_period"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["build"]["target"] == name
    assert f"/{name}:" in service["image"]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one_of_its_service(name: str) -> None:
    known = names_of(settings_of(name)) | {"FORETELL_SECRETS_DIR"}
    given = {variable.removesuffix("_FILE") for variable in ALL[name]["environment"]}
    assert given - known == set()


@pytest.mark.parametrize("name", [*OURS, "nginx", "postgres", "rabbitmq", "prometheus", "grafana"])
def test_a_service_sees_its_own_secrets_only(name: str) -> None:
    mounted = [volume for volume in ALL[name]["volumes"] if volume.startswith("secrets")]
    (only,) = mounted
    assert only.startswith(f"secrets-{name}:")
    assert only.endswith(":ro")
    for variable, value in (ALL[name].get("environment") or {}).items():
        if re.search("PASSWORD|SECRET_KEY|DATABASE_URL|BROKER_URL", variable):
            assert str(value).startswith("/run/secrets/"), variable


def test_every_folder_of_secrets_is_filled(tmp_path: Path) -> None:
    targets = [volume.split(":")[1] for volume in ALL["secrets"]["volumes"]]
    for target in targets:
        (tmp_path / Path(target).name).mkdir()
    write_secrets(tmp_path, {"FORETELL_ENVIRONMENT": "production"})
    assert all(list((tmp_path / Path(target).name).iterdir()) for target in targets)
    named = {volume.split(":")[0] for volume in ALL["secrets"]["volumes"]}
    assert named == {volume for volume in COMPOSE["volumes"] if volume.startswith("secrets")}


def test_the_files_that_are_named_are_made(tmp_path: Path) -> None:
    for name in OURS:
        (tmp_path / name).mkdir()
    write_secrets(tmp_path, {})
    for name in OURS:
        for variable, value in ALL[name]["environment"].items():
            if variable.endswith("_FILE"):
                assert (tmp_path / name / Path(value).name).is_file(), f"{name}: {variable}"


def test_files_that_are_mounted_are_here() -> None:
    for service in ALL.values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume


def test_nobody_starts_before_what_it_needs() -> None:
    assert ALL["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("app", "dispatcher"):
        assert ALL[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    for name in ("app", "dispatcher", "ml-worker"):
        assert ALL[name]["depends_on"]["rabbitmq"]["condition"] == "service_healthy"
    for name in [*OURS, "postgres", "rabbitmq", "nginx"]:
        assert ALL[name]["depends_on"]["secrets"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("file", ["docker-compose.ha.yaml", "docker-compose.caddy.yaml"])
def test_what_other_files_add_is_limited_and_its_files_are_here(file: str) -> None:
    added = yaml.load((ROOT / file).read_text(encoding="utf-8"), _Lenient)
    for name, service in added["services"].items():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume
            elif volume.split(":")[0] not in COMPOSE["volumes"]:
                assert volume.split(":")[0] in added["volumes"]
        if name not in ALL and "extends" not in service:
            assert service["deploy"]["resources"]["limits"]["memory"]
            assert service["restart"] == "unless-stopped"
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]


class _Lenient(yaml.SafeLoader):
    """Reads Compose's own tags, too."""


_Lenient.add_constructor("!reset", lambda loader, node: None)


def has_compose() -> bool:
    """Whether there is a client with Compose; it needs no engine to read a file."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def read_by_compose(*files: str, **settings: str) -> dict[str, Any]:
    """The services as Compose reads them from these files."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FORETELL_", "TELEGRAM_"))}
    done = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        env={**environment, "COMPOSE_FILE": os.pathsep.join(files), **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


@pytest.mark.skipif(not has_compose(), reason="there is no docker compose here")
def test_two_of_everything_are_told_of_each_other() -> None:
    read = read_by_compose("docker-compose.yaml", "docker-compose.ha.yaml")
    assert [read[name]["deploy"]["replicas"] for name in ("app", "dispatcher")] == [2, 2]
    hosts = read["secrets"]["environment"]
    assert {each.split(":")[0] for each in hosts["FORETELL_POSTGRES_HOSTS"].split(",")} == {"postgres", "postgres-2"}
    nodes = {each.split(":")[0] for each in hosts["FORETELL_RABBITMQ_HOSTS"].split(",")}
    assert nodes == {name for name in read if name.startswith("rabbitmq")}
    # Each has data of its own, and only the first node's page is published.
    for kind, path in (
        ("rabbitmq", "/var/lib/rabbitmq"),
        ("postgres", "/var/lib/postgresql/data"),
        ("etcd", "/var/lib/etcd"),
    ):
        volumes = [
            volume["source"]
            for name, service in read.items()
            if name.startswith(kind)
            for volume in service["volumes"]
            if volume["target"] == path
        ]
        assert len(set(volumes)) == len(volumes) >= 2
    assert [name for name in nodes if read[name].get("ports")] == ["rabbitmq"]
    # Whoever serves can't tell the servers who leads.
    assert set(read["etcd-1"]["networks"]) == {"agreement"}
    assert {name for name, service in read.items() if "agreement" in service.get("networks", {})} == {
        "postgres", "postgres-2", "etcd-1", "etcd-2", "etcd-3",
    }  # fmt: skip


@pytest.mark.skipif(not has_compose(), reason="there is no docker compose here")
def test_caddy_takes_the_place_of_nginx() -> None:
    read = read_by_compose(
        *("docker-compose.yaml", "docker-compose.caddy.yaml"),
        FORETELL_DOMAIN="foretell.example.org",
        FORETELL_HTTPS_PORT="8443",
    )
    # With none of it, one that ran before is removed; with a profile it would keep the ports.
    assert "profiles" not in read["nginx"]
    assert read["nginx"]["deploy"]["replicas"] == 0
    assert [port["published"] for port in read["caddy"]["ports"]] == ["80", "8443"]
    # What it leads HTTP to.
    assert read["caddy"]["environment"]["FORETELL_HTTPS_PORT"] == "8443"


@pytest.mark.skipif(not has_compose(), reason="there is no docker compose here")
@pytest.mark.parametrize(("token", "bots"), [("", 0), ("123456:AAbbCC", 1)])
def test_compose_reads_it_as_meant(token: str, bots: int) -> None:
    read = read_by_compose("docker-compose.yaml", TELEGRAM_TOKEN=token, FORETELL_HTTP_PORT="8080")
    assert read["bot"]["deploy"]["replicas"] == bots
    # The app hears that there is a bot, and not its token.
    assert read["app"]["environment"]["TELEGRAM_TOKEN"] == ("set" if token else "")
    assert [port["published"] for port in read["nginx"]["ports"]] == ["8080", "443"]
    assert {port["host_ip"] for service in read.values() for port in service.get("ports", [])} == {"127.0.0.1"}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_folders_in_commands_are_absolute(page: Path) -> None:
    """Of `-v ./folder:…`, `docker compose run` makes the name of a volume, and refuses it."""
    commands = re.findall(r"docker (?:compose )?run [^`\n]*", page.read_text(encoding="utf-8"))
    mounted = [each for command in commands for each in re.findall(r"(?:-v|--volume) (\S+)", command)]
    assert [each for each in mounted if not re.match(r'"?(\$PWD|/|\w)', each)] == []

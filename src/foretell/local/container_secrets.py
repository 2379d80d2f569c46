"""The secrets of an installation in containers: generated once, stored, and given to each service as files.

A service sees a folder with only its own secrets. Secrets that the operator gives (`FORETELL_SECRET_KEY` and so on)
replace the generated ones.
"""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from foretell.broker.rabbitmq_definitions import OPERATOR, RIGHTS, definitions
from foretell.contracts.bot_secret import bot_secret_key, new_bot_secret
from foretell.kit.errors import Misconfigured
from foretell.kit.settings import is_guessable

#: The folder that only the service `secrets` sees.
KEPT = "kept"
_SHORTEST = 16
_SHORTEST_KEY = 32

_DATABASE, _MONITORING_DATABASE = "foretell", "foretell_monitoring"


def _token() -> str:
    return secrets.token_hex(32)


@dataclass(frozen=True, slots=True)
class _Secret:
    """One secret: how it is generated, and the setting by which an operator can give it, if any."""

    setting: str = ""
    make: Callable[[], str] = _token
    shortest: int = _SHORTEST
    #: Whether only production has one; without it access is open, as in a local installation.
    production_only: bool = False


_SECRETS = {
    "secret_key": _Secret("FORETELL_SECRET_KEY", shortest=_SHORTEST_KEY),
    "bot_secret": _Secret("FORETELL_BOT_SECRET", make=new_bot_secret),
    "monitoring_token": _Secret("FORETELL_MONITORING_TOKEN", production_only=True),
    "admin_token": _Secret("FORETELL_ADMIN_TOKEN"),
    "grafana_password": _Secret("FORETELL_GRAFANA_PASSWORD"),
    # Never typed by people: PostgreSQL and RabbitMQ of the installation get them at their first start.
    "erlang_cookie": _Secret(),
    "postgres_password": _Secret(),
    "database_password": _Secret(),
    "monitoring_database_password": _Secret(),
    **{f"rabbitmq_{name}": _Secret() for name in (*RIGHTS, OPERATOR)},
}


def write_secrets(folder: Path, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Generate missing secrets in `folder/kept`, and write every service's files beside it; returns the new ones.

    A repeated call changes only what the operator has changed. Raises `Misconfigured` for a secret of the operator
    that is short, and in production for a guessable one.
    """
    production = environment.get("FORETELL_ENVIRONMENT") == "production"
    found: dict[str, str] = {}
    made = []
    for name, secret in _SECRETS.items():
        place = folder / KEPT / name
        given = environment.get(secret.setting, "")
        if given:
            _check(secret, name, given, production=production)
        kept = place.read_text(encoding="utf-8").strip() if place.is_file() else ""
        value = given or kept
        if not value and secret.production_only and not production:
            continue
        if not value:
            value = secret.make()
            made.append(name)
        if value != kept:
            _write(place, value)
        found[name] = value
    if not production and not environment.get("FORETELL_MONITORING_TOKEN"):
        found.pop("monitoring_token", None)
    for service, files in _files(found, environment, production=production).items():
        _hand_over(folder / service, files)
    return made


def _check(secret: _Secret, name: str, given: str, *, production: bool) -> None:
    if name == "bot_secret":
        try:
            bot_secret_key(given)
        except ValueError as error:
            raise Misconfigured(f"{secret.setting}: {error}.") from error
    elif len(given) < secret.shortest or not given.isascii() or any(sign.isspace() for sign in given):
        raise Misconfigured(f"{secret.setting} needs at least {secret.shortest} characters, of ASCII and no spaces.")
    if production and is_guessable(given):
        raise Misconfigured(f"{secret.setting} is a placeholder or easy to guess; leave it out: a random one is made.")


def _files(found: Mapping[str, str], environment: Mapping[str, str], *, production: bool) -> dict[str, dict[str, str]]:
    """The files in each service's folder: settings by their names, and files for PostgreSQL and others."""

    servers = environment.get("FORETELL_POSTGRES_HOSTS") or "postgres:5432"
    # With several servers, use the one that accepts writes.
    which = "?target_session_attrs=read-write" if "," in servers else ""
    nodes = environment.get("FORETELL_RABBITMQ_HOSTS") or "rabbitmq:5672"

    def database(user: str, password: str) -> str:
        return f"postgresql://{user}:{found[password]}@{servers}/{user}{which}"

    def broker(user: str) -> str:
        return f"amqp://{user}:{found[f'rabbitmq_{user}']}@{nodes}/"

    token = {"FORETELL_MONITORING_TOKEN": found["monitoring_token"]} if "monitoring_token" in found else {}
    bot = {"FORETELL_BOT_SECRET": found["bot_secret"]}
    product = {
        "FORETELL_DATABASE_URL": environment.get("FORETELL_DATABASE_URL") or database(_DATABASE, "database_password")
    }
    records = {
        "FORETELL_MONITORING_DATABASE_URL": environment.get("FORETELL_MONITORING_DATABASE_URL")
        or database(_MONITORING_DATABASE, "monitoring_database_password")
    }

    def broker_url(user: str) -> dict[str, str]:
        return {"FORETELL_BROKER_URL": environment.get("FORETELL_BROKER_URL") or broker(user)}

    passwords = {name: found[f"rabbitmq_{name}"] for name in (*RIGHTS, OPERATOR)}
    return {
        "app": {
            **token,
            **bot,
            **product,
            **broker_url("app"),
            "FORETELL_SECRET_KEY": found["secret_key"],
            "FORETELL_ADMIN_TOKEN": found["admin_token"],
        },
        "dispatcher": {**token, **bot, **product, **broker_url("dispatcher")},
        "ml-worker": {**token, **broker_url("worker")},
        "model-service": {**token, "FORETELL_ADMIN_TOKEN": found["admin_token"]},
        "preprocessing-service": token,
        "monitoring-service": {**token, **records, **broker_url("monitoring")},
        "bot": {**token, **bot},
        "nginx": token,
        "postgres": {
            "postgres_password": found["postgres_password"],
            "database_password": found["database_password"],
            "monitoring_database_password": found["monitoring_database_password"],
        },
        "rabbitmq": {
            "definitions.json": json.dumps(definitions(passwords, guest_looks=not production), indent=1),
            "operator_password": passwords[OPERATOR],
            "erlang_cookie": found["erlang_cookie"],
        },
        "prometheus": {"monitoring-token": found.get("monitoring_token", "")},
        "grafana": {"admin_password": found["grafana_password"]},
    }


def _hand_over(folder: Path, files: Mapping[str, str]) -> None:
    """Make these the only files in a service's folder. Only that service sees the folder."""
    if not folder.is_dir():
        return
    for left in folder.iterdir():
        if left.is_file() and left.name not in files:
            left.unlink()
    for name, text in files.items():
        _write(folder / name, text, mode=0o444)


def _write(place: Path, text: str, mode: int = 0o400) -> None:
    """Write a file atomically."""
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text + "\n" if text else text)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(place)

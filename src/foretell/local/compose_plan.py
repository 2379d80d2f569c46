"""The services in docker-compose.yaml, with the settings of the environment and of `.env`, as resolved by Compose."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from foretell.local.containers import Container

#: The shipped reverse proxies, with their preferred port and scheme.
_PROXIES = (("nginx", 80, "http"), ("caddy", 443, "https"))
_USUAL = {"http": 80, "https": 443}
_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?((?:FORETELL|TELEGRAM)_[A-Za-z0-9_]+)\s*=", re.MULTILINE)
_READ = re.compile(r"\b(?:FORETELL|TELEGRAM)_[A-Z0-9_]+\b")


@dataclass(frozen=True, slots=True)
class Plan:
    """The services of a start, from `docker compose config`."""

    services: Mapping[str, Any]
    #: The name of the Compose project; its containers and volumes have it as a label.
    project: str = "foretell"

    @property
    def development(self) -> bool:
        """Whether there is a test user."""
        environment = self.services.get("app", {}).get("environment") or {}
        return (environment.get("FORETELL_ENVIRONMENT") or "development") == "development"

    @property
    def has_bot(self) -> bool:
        """Whether a bot is started, which depends on its token."""
        return self._count("bot") > 0

    def url(self, containers: Iterable[Container]) -> str:
        """The URL of the page on this machine."""
        for name, target, scheme in _PROXIES:
            if not self._count(name):
                continue
            wanted = self._published(name, target)
            found = next((each.published for each in containers if each.service == name), ())
            port = wanted if wanted in found or not found else found[0]
            host = (self.services[name].get("environment") or {}).get("FORETELL_DOMAIN") or "127.0.0.1"
            return f"{scheme}://{host}" if port == _USUAL[scheme] else f"{scheme}://{host}:{port}"
        return "http://127.0.0.1"

    def _count(self, service: str) -> int:
        """How many containers of a service a start has unless it is scaled: none of nginx where Caddy replaces it."""
        if service not in self.services:
            return 0
        return int((self.services[service].get("deploy") or {}).get("replicas", 1))

    def _published(self, service: str, target: int) -> int:
        """The published port of a service's port; the same port if Docker may choose."""
        for port in self.services[service].get("ports", []):
            if port.get("target") == target and str(port.get("published", "")).isdecimal():
                return int(port["published"])
        return target


def unread_settings(folder: Path) -> dict[str, str]:
    """The settings in `.env` that no YAML file beside it uses, each with the name that was probably meant, or empty."""
    try:
        given = _ASSIGNMENT.findall((folder / ".env").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}
    files = [*folder.glob("*.yaml"), *folder.glob("*.yml")]
    known = {name for file in files for name in _READ.findall(file.read_text(encoding="utf-8", errors="replace"))}
    unread = [name for name in dict.fromkeys(given) if name not in known]
    return {name: next(iter(get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.8)), "") for name in unread}

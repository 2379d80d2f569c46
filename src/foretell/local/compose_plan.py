"""What docker-compose.yaml asks for, with the settings of the environment and of `.env`, as Compose has read them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from foretell.local.containers import Container

#: The reverse proxies that we ship, the port at which each is asked first, and how.
_PROXIES = (("nginx", 80, "http"), ("caddy", 443, "https"))
_USUAL = {"http": 80, "https": 443}
_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?((?:FORETELL|TELEGRAM)_[A-Za-z0-9_]+)\s*=", re.MULTILINE)
_READ = re.compile(r"\b(?:FORETELL|TELEGRAM)_[A-Z0-9_]+\b")


@dataclass(frozen=True, slots=True)
class Plan:
    """The services that a start has, as `docker compose config` shows them."""

    services: Mapping[str, Any]
    #: Of the Compose project, which its containers and volumes are labelled with.
    project: str = "foretell"

    @property
    def development(self) -> bool:
        """Whether there is a user to try with."""
        environment = self.services.get("app", {}).get("environment") or {}
        return (environment.get("FORETELL_ENVIRONMENT") or "development") == "development"

    @property
    def has_bot(self) -> bool:
        """Whether a bot is started: it is where its token is set."""
        return bool((self.services.get("bot", {}).get("deploy") or {}).get("replicas", 0))

    def url(self, containers: Iterable[Container]) -> str:
        """Where the page is, as this machine reaches it."""
        for name, target, scheme in _PROXIES:
            if name not in self.services:
                continue
            wanted = self._published(name, target)
            found = next((each.published for each in containers if each.service == name), ())
            port = wanted if wanted in found or not found else found[0]
            host = (self.services[name].get("environment") or {}).get("FORETELL_DOMAIN") or "127.0.0.1"
            return f"{scheme}://{host}" if port == _USUAL[scheme] else f"{scheme}://{host}:{port}"
        return "http://127.0.0.1"

    def _published(self, service: str, target: int) -> int:
        """The port at which a service's port is published; the same where the engine may choose."""
        for port in self.services[service].get("ports", []):
            if port.get("target") == target and str(port.get("published", "")).isdecimal():
                return int(port["published"])
        return target


def unread_settings(folder: Path) -> dict[str, str]:
    """The settings in `.env` that no YAML file beside it reads, each with the name that was probably meant, or none."""
    try:
        given = _ASSIGNMENT.findall((folder / ".env").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}
    files = [*folder.glob("*.yaml"), *folder.glob("*.yml")]
    known = {name for file in files for name in _READ.findall(file.read_text(encoding="utf-8", errors="replace"))}
    unread = [name for name in dict.fromkeys(given) if name not in known]
    return {name: next(iter(get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.8)), "") for name in unread}

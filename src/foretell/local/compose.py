"""The docker engine: Docker Compose does the work, we only ask it."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import foretell
from foretell.kit.errors import ForetellError
from foretell.local.services import SERVICES

COMPOSE_FILE = "docker-compose.yaml"
_ASK_TIMEOUT_S = 10.0


class DockerAbsent(ForetellError):
    """Docker is not installed here (there is no command docker). Install it, or use --engine local."""

    code = "docker_absent"


class ComposeFileAbsent(ForetellError):
    """There is no docker-compose.yaml in {folder}, so the docker engine has nothing to start. Use --engine local."""

    code = "compose_file_absent"


class DockerFailed(ForetellError):
    """docker compose {action} failed: {reason}"""

    code = "docker_failed"


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the installation."""

    service: str
    name: str
    state: str
    health: str
    ports: str
    id: str
    running_for: str


def compose_name(service: str) -> str:
    """What Docker Compose calls a service."""
    return next((each.compose_name or each.name for each in SERVICES if each.name == service), service)


def _folder() -> Path:
    """Where docker-compose.yaml stands: here, or at the root of the checkout that we run from."""
    here = Path.cwd()
    checkout = Path(foretell.__file__).parents[2]
    return here if (here / COMPOSE_FILE).is_file() or not (checkout / COMPOSE_FILE).is_file() else checkout


class Compose:
    """The Docker Compose project of this checkout."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or _folder()

    def check(self) -> None:
        """Raises `DockerAbsent` or `ComposeFileAbsent`."""
        if not (self._folder / COMPOSE_FILE).is_file():
            raise ComposeFileAbsent(folder=self._folder)
        if shutil.which("docker") is None:
            raise DockerAbsent

    def running(self) -> bool:
        """Whether any container of ours runs; False where there is no Docker to ask."""
        try:
            self.check()
            return bool(self._ask("ps", "--quiet").strip())
        except ForetellError:
            return False

    def up(self, workers: int | None) -> None:
        """Start everything, and wait until it is healthy. Raises `DockerFailed`."""
        scale = () if workers is None else ("--scale", f"ml-worker={workers}")
        self._run("up", "--detach", "--wait", *scale)

    def down(self) -> None:
        """Stop everything; the data stays in its volumes. Raises `DockerFailed`."""
        self._run("down", "--remove-orphans")

    def containers(self) -> list[Container]:
        """What runs. Raises `DockerFailed`."""
        output = self._ask("ps", "--format", "json").strip()
        # Older releases print one list, newer ones an object a line.
        found = json.loads(output) if output.startswith("[") else [json.loads(line) for line in output.splitlines()]
        return [
            Container(
                service=each.get("Service", ""),
                name=each.get("Name", ""),
                state=each.get("State", ""),
                health=each.get("Health", ""),
                ports=_published(each),
                id=each.get("ID", "")[:12],
                running_for=each.get("RunningFor", "") or each.get("Status", ""),
            )
            for each in found
        ]

    def logs(self, service: str | None, *, follow: bool, lines: int) -> None:
        """Show logs until they end, or with `follow` until Ctrl-C. Raises `DockerFailed`."""
        services = () if service is None else (compose_name(service),)
        self._run("logs", "--tail", str(lines), *(("--follow",) if follow else ()), *services)

    def _command(self, *arguments: str) -> list[str]:
        return ["docker", "compose", "--file", str(self._folder / COMPOSE_FILE), *arguments]

    def _run(self, *arguments: str) -> None:
        """Run with the terminal's own output, since pulling and building take long."""
        self.check()
        status = subprocess.run(self._command(*arguments), check=False).returncode  # noqa: S603 - our own arguments
        if status not in (0, 130):
            raise DockerFailed(action=arguments[0], reason=f"exit code {status}; what it said stands above")

    def _ask(self, *arguments: str) -> str:
        self.check()
        try:
            answer = subprocess.run(  # noqa: S603 - our own arguments
                self._command(*arguments),
                check=False,
                capture_output=True,
                text=True,
                timeout=_ASK_TIMEOUT_S,
                env={**os.environ, "COMPOSE_ANSI": "never"},
            )
        except subprocess.TimeoutExpired as error:
            raise DockerFailed(action=arguments[0], reason=f"no answer within {_ASK_TIMEOUT_S:g} s") from error
        if answer.returncode:
            said = answer.stderr.strip().splitlines()
            raise DockerFailed(action=arguments[0], reason=said[-1] if said else f"exit code {answer.returncode}")
        return answer.stdout


def _published(container: dict[str, object]) -> str:
    publishers = container.get("Publishers")
    if not isinstance(publishers, list):
        return ""
    ports = {each.get("PublishedPort") for each in publishers if isinstance(each, dict)}
    return ", ".join(str(port) for port in sorted(port for port in ports if isinstance(port, int) and port))

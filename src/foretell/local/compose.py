"""The docker engine: calls Docker Compose, watches the containers, and explains errors."""

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import foretell
from foretell.kit.disk import DiskFull, is_full
from foretell.kit.errors import ForetellError
from foretell.local import ports
from foretell.local.compose_plan import Plan
from foretell.local.containers import ONCE, Container, container_of
from foretell.local.services import SERVICES

COMPOSE_FILE = "docker-compose.yaml"
WORKERS = "ml-worker"
_START = "python start.py --engine docker --start"
_ASK_TIMEOUT_S = 20.0
_TRIES = 5
#: Services of inactive profiles are included, too.
_EVERY_PROFILE = ("--profile", "*")


class DockerAbsent(ForetellError):
    """Docker is not installed here (there is no command docker). Install it, or use --engine local."""

    code = "docker_absent"


class ComposeAbsent(ForetellError):
    """This Docker has no Compose (docker compose). Install its plugin docker-compose, or use --engine local."""

    code = "compose_absent"


class EngineAway(ForetellError):
    """The Docker engine does not answer. Start it (sudo systemctl start docker, or Docker Desktop), or use --engine local."""  # noqa: E501

    code = "docker_engine_away"


class DockerForbidden(ForetellError):
    """You may not use Docker here: its engine refuses you. Ask to be in the group docker, or use --engine local."""

    code = "docker_forbidden"


class ComposeFileAbsent(ForetellError):
    """There is no docker-compose.yaml in {folder}, so the docker engine has nothing to start. Use --engine local."""

    code = "compose_file_absent"


class DockerFailed(ForetellError):
    """docker compose {action} failed: {reason}"""

    code = "docker_failed"


class NoSuchService(ForetellError):
    """There is no service {name}. These are there: {known}."""

    code = "no_such_service"


class ContainerGone(ForetellError):
    """A container was replaced while it was asked about. Ask again."""

    code = "container_gone"


#: Parts of Docker's messages, in lower case, and our errors for them.
_KNOWN: tuple[tuple[str, type[ForetellError]], ...] = (
    ("permission denied while trying to connect", DockerForbidden),
    ("cannot connect to the docker daemon", EngineAway),
    ("is the docker daemon running", EngineAway),
    ("error during connect", EngineAway),
    ("unknown command: docker compose", ComposeAbsent),
    ("no such object", ContainerGone),
    ("no such container", ContainerGone),
    ("'compose' is not a docker command", ComposeAbsent),
)


def compose_name(service: str) -> str:
    """The name of a service in Docker Compose."""
    return next((each.compose_name or each.name for each in SERVICES if each.name == service), service)


def _folder() -> Path:
    """The folder of docker-compose.yaml: the current one, or the root of our checkout."""
    here = Path.cwd()
    checkout = Path(foretell.__file__).parents[2]
    return here if (here / COMPOSE_FILE).is_file() or not (checkout / COMPOSE_FILE).is_file() else checkout


class Compose:
    """The Docker Compose project of this checkout."""

    def __init__(self, folder: Path | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self.folder = folder or _folder()
        self._environment = environment

    def check(self) -> None:
        """Raises `DockerAbsent` or `ComposeFileAbsent`."""
        if not (self.folder / COMPOSE_FILE).is_file():
            raise ComposeFileAbsent(folder=self.folder)
        if shutil.which("docker") is None:
            raise DockerAbsent

    def running(self) -> bool:
        """Whether any of our containers runs; False without Docker."""
        try:
            return bool(self.ask("ps", "--quiet").strip())
        except ForetellError:
            return False

    def containers(self) -> list[Container]:
        """All containers except finished one-time ones. Raises `DockerFailed` and similar errors."""
        found = [container_of(each) for each in self._inspected()]
        return sorted(
            (each for each in found if each.service not in ONCE or each.exit_code),
            key=lambda each: (each.service, len(each.name), each.name),
        )

    def _inspected(self) -> list[dict[str, Any]]:
        for tries_left in reversed(range(_TRIES)):
            ids = self.ask("ps", "--all", "--quiet").split()
            if not ids:
                break
            try:
                inspected: list[dict[str, Any]] = json.loads(self._docker("inspect", *ids))
                return inspected
            except ContainerGone:
                # Compose may replace containers between our calls.
                if not tries_left:
                    raise
        return []

    def services(self) -> list[str]:
        """The services in docker-compose.yaml, including those of profiles."""
        return sorted(self.ask("config", "--services").split())

    @cached_property
    def plan(self) -> Plan:
        """The services to start; read once. Raises `DockerFailed` and similar errors."""
        read = json.loads(self.ask("config", "--format", "json", every_profile=False))
        return Plan(read["services"], read.get("name", "foretell"))

    # Start

    def check_ports(self) -> None:
        """Raises `PortTaken` or `PortForbidden` for a port that can't be published."""
        ours = {port for each in self.containers() for port in each.published}
        for name, service in self.plan.services.items():
            for port in service.get("ports", []):
                published = str(port.get("published", ""))
                if published.isdecimal() and int(published) not in ours:
                    host = port.get("host_ip") or "0.0.0.0"  # noqa: S104
                    ports.check_free(host, int(published), _variable(name, port), _START)

    def missing_images(self) -> list[str]:
        """Images that are not built or fetched yet."""
        wanted = {service["image"] for service in self.plan.services.values() if service.get("build")}
        return sorted(image for image in wanted if not self._has(image))

    def _has(self, image: str) -> bool:
        try:
            return bool(self._docker("image", "inspect", "--format", "{{.Id}}", image))
        except DockerFailed:
            return False

    def build(self) -> None:
        """Build our images, with Docker's output on the terminal, since it takes minutes. Raises `DockerFailed`."""
        self.check()
        status = subprocess.run(  # noqa: S603 - our own arguments
            self.command("build"), check=False, cwd=self.folder, env=self._docker_environment()
        ).returncode
        if status:
            self._raise_if_full()
            raise DockerFailed(action="build", reason=f"exit code {status}; what it said stands above")

    def begin_up(self, workers: int | None) -> "subprocess.Popen[str]":
        """Start everything, or what has changed; returns the process of Docker Compose."""
        self.check()
        counts = Counter(each.service for each in self.containers())
        # Keep numbers that were scaled by hand: without `--scale`, Compose goes back to the numbers of the file.
        counts = Counter({name: count for name, count in counts.items() if count > 1 or name == WORKERS})
        if workers is not None:
            counts[WORKERS] = workers
        scale = [word for name, count in sorted(counts.items()) for word in ("--scale", f"{name}={count}")]
        return self._popen("up", "--detach", *scale, every_profile=False)

    def begin_scale(self, workers: int) -> "subprocess.Popen[str]":
        """Change the number of workers; returns the process of Docker Compose."""
        self.check()
        return self._popen(
            "up", "--detach", "--no-deps", "--no-recreate", "--scale", f"{WORKERS}={workers}", WORKERS,
            every_profile=False,
        )  # fmt: skip

    def _popen(self, *arguments: str, every_profile: bool) -> "subprocess.Popen[str]":
        return subprocess.Popen(  # noqa: S603 - our own arguments
            self.command(*arguments, every_profile=every_profile),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self._docker_environment(),
        )

    def down(self) -> None:
        """Stop everything; the data stays in its volumes. Raises `DockerFailed` and similar errors."""
        self.check()
        process = self._popen("down", "--remove-orphans", every_profile=True)
        said = process.communicate()[1]
        if process.returncode:
            raise self.failure("down", said)

    # What Docker says

    def command(self, *arguments: str, every_profile: bool = True) -> list[str]:
        """The command line of Docker Compose for this project, to be run in its folder.

        It names no file, so that COMPOSE_FILE, in the environment or in `.env`, works as usual.
        """
        profiles = _EVERY_PROFILE if every_profile else ()
        return ["docker", "compose", *profiles, *arguments]

    def _docker_environment(self) -> dict[str, str]:
        return {**self._environment, "COMPOSE_ANSI": "never", "COMPOSE_MENU": "false"}

    def ask(self, *arguments: str, every_profile: bool = True) -> str:
        """The output of `docker compose`. Raises `DockerFailed` and similar errors."""
        self.check()
        return self._answer(arguments[0], self.command(*arguments, every_profile=every_profile))

    def _docker(self, *arguments: str) -> str:
        return self._answer(arguments[0], ["docker", *arguments])

    def last_words(self, container: str, lines: int) -> list[str]:
        """The last lines of a container's log."""
        try:
            done = subprocess.run(  # noqa: S603 - our own arguments
                ["docker", "logs", "--tail", str(lines), container],  # noqa: S607
                check=False, capture_output=True, text=True, errors="replace", timeout=_ASK_TIMEOUT_S,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return []
        return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]

    def _answer(self, action: str, command: list[str]) -> str:
        try:
            answer = subprocess.run(  # noqa: S603 - our own arguments
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=_ASK_TIMEOUT_S,
                cwd=self.folder,
                env=self._docker_environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise DockerFailed(action=action, reason=f"no answer within {_ASK_TIMEOUT_S:g} s") from error
        if answer.returncode:
            raise self.failure(action, answer.stderr, status=answer.returncode)
        return answer.stdout

    def failure(self, action: str, said: str, *, status: int = 1) -> ForetellError:
        """Our error for Docker's message."""
        text = said.lower()
        for words, error in _KNOWN:
            if words in text:
                return error()
        if "port is already allocated" in text or "address already in use" in text:
            # The port was free when we checked. Check again, so that the message names it.
            try:
                self.check_ports()
            except ForetellError as taken:
                return taken
        if "no space left on device" in text:
            return DiskFull(folder=self._data_folder())
        lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("time=")]
        return DockerFailed(action=action, reason=lines[-1] if lines else f"exit code {status}")

    def _data_folder(self) -> Path:
        """Docker's folder for images and volumes."""
        try:
            return Path(self._docker("info", "--format", "{{.DockerRootDir}}").strip() or "/var/lib/docker")
        except ForetellError:
            return Path("/var/lib/docker")

    def _raise_if_full(self) -> None:
        folder = self._data_folder()
        if is_full(folder):
            raise DiskFull(folder=folder)


#: The settings for the published ports of third-party services.
_OTHER_PORTS = {
    "nginx:443": "FORETELL_HTTPS_PORT",
    "nginx:80": "FORETELL_HTTP_PORT",
    "rabbitmq:15672": "FORETELL_RABBITMQ_MANAGEMENT_PORT",
    "prometheus:9090": "FORETELL_PROMETHEUS_PORT",
    "grafana:3000": "FORETELL_GRAFANA_PORT",
    "kibana:5601": "FORETELL_KIBANA_PORT",
}


def _variable(service: str, port: Mapping[str, Any]) -> str:
    """The setting that changes a published port."""
    ours = {each.compose_name or each.name: each.port_variable for each in SERVICES}
    return ours.get(service) or _OTHER_PORTS.get(f"{service}:{port.get('target')}", "FORETELL_PUBLISH_ADDRESS")


def workers_of(containers: Iterable[Container]) -> int:
    """The number of workers."""
    return sum(each.service == WORKERS for each in containers)

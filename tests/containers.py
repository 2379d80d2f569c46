"""A container engine and a whole stack of docker-compose.yaml, for the tests that run it.

They run where an engine answers. With `FORETELL_TEST_ENGINE=1` one is brought up by `FORETELL_TEST_ENGINE_COMMAND`
(`… up`, `… env`; by default `../shared/tools/containers/engine` beside this checkout). Elsewhere they are skipped, and
say so. `FORETELL_TEST_IMAGES=VERSION` takes images that are there already instead of building them.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[1]
#: What `docker compose up -d` runs, each of them killed in a test.
SERVICES = (
    "app", "dispatcher", "ml-worker", "model-service", "preprocessing-service", "monitoring-service", "nginx",
    "rabbitmq", "postgres",
)  # fmt: skip
_UP_S = 1800.0
_CALL_S = 600.0
_PORTS = (
    "FORETELL_HTTP_PORT", "FORETELL_HTTPS_PORT", "FORETELL_MODEL_PORT", "FORETELL_PREPROCESSING_PORT",
    "FORETELL_MONITORING_PORT", "FORETELL_RABBITMQ_MANAGEMENT_PORT", "FORETELL_PROMETHEUS_PORT",
)  # fmt: skip


@cache
def engine_environment() -> dict[str, str]:
    """What leads the docker client to an engine that answers. Skips the test where there is none."""
    environment: dict[str, str] = {}
    if os.environ.get("FORETELL_TEST_ENGINE"):
        command = os.environ.get("FORETELL_TEST_ENGINE_COMMAND") or str(ROOT / "../shared/tools/containers/engine")
        subprocess.run([command, "up"], check=True, timeout=_UP_S)
        said = subprocess.run([command, "env"], check=True, capture_output=True, text=True).stdout
        environment = dict(re.findall(r"export (\w+)=(\S+)", said))
    if shutil.which("docker") is None:
        pytest.skip("not run: there is no docker here (FORETELL_TEST_ENGINE=1 brings up an engine)")
    for asked in (["info"], ["compose", "version"]):
        done = subprocess.run(
            ["docker", *asked], env={**os.environ, **environment}, capture_output=True, check=False, timeout=60
        )
        if done.returncode:
            pytest.skip("not run: no container engine with Compose answers (FORETELL_TEST_ENGINE=1 brings one up)")
    return environment


def wait_until(done: Callable[[], bool], what: str, timeout_s: float = 180.0) -> None:
    """Wait until something is so; a bound for what hangs, not for what is slow."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.5)


@dataclass
class Stack:
    """One installation in containers, with a project name, ports and a network of its own."""

    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """nginx."""
        return f"http://127.0.0.1:{self.environment['FORETELL_HTTP_PORT']}"

    def port(self, name: str) -> str:
        """Where a port is published: `MODEL` say."""
        return f"http://127.0.0.1:{self.environment[f'FORETELL_{name}_PORT']}"

    def run(self, *command: str, stdin: str = "", check: bool = True, **more: str) -> str:
        """What a command answers that is led to this stack."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **more},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CALL_S,
        )
        assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def compose(self, *arguments: str, stdin: str = "", check: bool = True, **more: str) -> str:
        """What `docker compose` answers."""
        return self.run("docker", "compose", *arguments, stdin=stdin, check=check, **more)

    def foretell(self, *arguments: str, stdin: str = "") -> str:
        """What the operator's command says in the app's container."""
        return self.compose("exec", "-T", "app", "foretell", *arguments, stdin=stdin)

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """The containers of services, of all without a name, as `docker inspect` shows them."""
        ids = self.compose("ps", "--all", "--quiet", *services).split()
        # One that is replaced meanwhile is left out.
        found: list[dict[str, Any]] = json.loads(self.run("docker", "inspect", *ids, check=False)) if ids else []
        return found

    def healthy(self, *services: str) -> bool:
        """Whether every container of these services runs, and says that it is well."""
        states = [each["State"] for each in self.containers(*services)]
        return bool(states) and all(
            state["Status"] == "running" and state.get("Health", {}).get("Status", "healthy") == "healthy"
            for state in states
        )

    def wait_until_healthy(self, *services: str) -> None:
        """Wait until these services are healthy, all of them without a name."""
        wanted = services or SERVICES
        wait_until(lambda: self.healthy(*wanted), f"{', '.join(wanted)} healthy", 600.0)

    def kill(self, service: str) -> None:
        """End a service's first container at once, as a crash does, so that Docker starts it again."""
        container = self.containers(service)[0]
        try:
            os.kill(container["State"]["Pid"], signal.SIGKILL)
        except (PermissionError, ProcessLookupError):
            # An engine in a machine of its own. Docker takes this for a stop that is meant.
            self.run("docker", "kill", container["Id"])
            self.run("docker", "start", container["Id"])

    def audit(self) -> list[Any]:
        """What does not fit in the books."""
        found: list[Any] = json.loads(self.foretell("audit", "--json"))
        return found

    def add_user(self, name: str, credits: int) -> str:
        """A new user's access token; the user's name begins with `name`."""
        name = f"{name}-{secrets.token_hex(3)}"
        password = f"{name} has a long password"
        arguments = ("users", "add", name, "--password-stdin", "--credits", str(credits))

        def added() -> bool:
            # On a machine that is busy, the database may have to be asked again.
            command = ("docker", "compose", "exec", "-T", "app", "foretell", *arguments)
            return bool(self.run(*command, stdin=f"{password}\n", check=False))

        wait_until(added, f"the user {name}")
        return self.token(name, password)

    def token(self, name: str, password: str) -> str:
        """An access token. On a machine that is busy, the app may have to be asked again."""
        while True:
            answer = httpx.post(f"{self.url}/token", data={"username": name, "password": password}, timeout=60)
            if answer.status_code != 503:
                break
            time.sleep(float(answer.headers.get("retry-after", 1)))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


def running_stack(settings: Mapping[str, str], services: Sequence[str] = SERVICES) -> Iterator[Stack]:
    """Build the images, start everything by `docker compose up -d`, and remove it with its data at the end.

    `services` are those that are healthy before the tests begin.
    """
    engine = engine_environment()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FORETELL_", "TELEGRAM_"))}
    ports = free_ports(len(_PORTS))
    stack = Stack(
        {
            **kept,
            **engine,
            "COMPOSE_PROJECT_NAME": f"foretell-test-{ports[0]}",
            "COMPOSE_ANSI": "never",
            "FORETELL_FRONT_NETWORK": f"172.30.{ports[0] % 200 + 10}.0/24",
            **{name: str(port) for name, port in zip(_PORTS, ports, strict=True)},
            **settings,
        }
    )
    images = os.environ.get("FORETELL_TEST_IMAGES", "")
    if images:
        stack.environment["FORETELL_VERSION"] = images
    try:
        if not images:
            subprocess.run(
                ["docker", "compose", "build", "--quiet"], cwd=ROOT, env=stack.environment, check=True, timeout=_UP_S
            )
        subprocess.run(
            ["docker", "compose", "up", "--detach", "--quiet-pull"],
            cwd=ROOT,
            env=stack.environment,
            check=True,
            timeout=_UP_S,
        )
        stack.wait_until_healthy(*services)
        yield stack
    finally:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["docker", "compose", "--profile", "*", "down", "--volumes", "--remove-orphans"],
                cwd=ROOT,
                env=stack.environment,
                check=False,
                capture_output=True,
                timeout=_CALL_S,
            )

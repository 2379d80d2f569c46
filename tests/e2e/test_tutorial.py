"""The tutorials do what they say: their code is taken from the page and run as it stands there."""

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[2]
TUTORIAL = REPOSITORY / "docs" / "tutorials" / "bring-your-own-model.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAVE_AS = re.compile(r"[Ss]ave this as `([\w.]+)`")


def script_of(page: str) -> str:
    """All the code of a page as one script, which prints a mark in front of each block."""
    parts = ["set -euo pipefail"]
    end = 0
    for number, block in enumerate(_BLOCK.finditer(page)):
        language, code = block.groups()
        if language == "python":
            # What the page asks its reader to save, the script saves.
            (name,) = _SAVE_AS.findall(page[end : block.start()])
            parts.append(f"cat > {name} <<'END OF FILE'\n{code}END OF FILE")
        elif language == "bash":
            parts.append(f"printf '\\n=== {number}\\n'\n{code}")
        end = block.end()
    return "\n".join(parts)


def distributions(*wanted: str) -> dict[str, Distribution]:
    """The installed packages that `pip install` of these requirements brings, by name."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(each) for each in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        extras = frozenset(requirement.extras)
        if (requirement.name, extras) in seen:
            continue
        seen.add((requirement.name, extras))
        package = distribution(requirement.name)
        found[package.name] = package
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append(needed)
    return found


def lean_python(folder: Path, *wanted: str) -> Path:
    """The Python of an environment that holds only what these requirements bring: links to what is installed here."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for package in distributions(*wanted).values():
        for top in {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site_packages / top).exists():
                (site_packages / top).symlink_to(Path(str(package.locate_file(top))))
    command = folder / "bin" / "foretell"
    command.write_text(f"#!{folder}/bin/python\nfrom foretell.cli.main import run\n\nrun()\n")
    command.chmod(0o755)
    return folder / "bin" / "python"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An installation of its own: folder, ports, and the commands that a reader has on the path.

    The tests' own packages (pandas, say) are not there: only the product's, and those that the page tells to install.
    """
    (named,) = re.findall(r"`pip install ([^`]+)`", TUTORIAL.read_text(encoding="utf-8"))
    python = lean_python(tmp_path / "venv", "foretell[local]", *named.split())
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
    ports = {f"FORETELL_{name}_PORT": str(free_port()) for name in ("APP", "MODEL", "PREPROCESSING", "MONITORING")}
    environment = {
        **inherited,
        **ports,
        "FORETELL_DATA_DIR": str(tmp_path / "data"),
        "PATH": os.pathsep.join([str(python.parent), inherited.get("PATH", "")]),
    }
    yield environment
    subprocess.run([python, "-m", "foretell.cli", "down"], env=environment, cwd=tmp_path, check=False)


@pytest.mark.timeout(600)
def test_a_fresh_model_becomes_a_paid_prediction(tmp_path: Path, environment: dict[str, str]) -> None:
    script = script_of(TUTORIAL.read_text(encoding="utf-8"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    prediction = next(answer for answer in answers if "output" in answer)
    assert prediction["status"] == "succeeded"
    assert (prediction["model"], prediction["version"], prediction["price"]) == ("wine", "1.0.0", 2)
    assert prediction["output"]["prediction"] == 0
    assert set(prediction["output"]["probabilities"]) == {"0", "1", "2"}
    balance = next(answer for answer in answers if "available" in answer)
    assert (balance["available"], balance["held"]) == (98, 0)
    assert "wine is ready." in done.stdout
    assert done.stdout.count("Every service that runs here has read it.") == 4
    audited = subprocess.run(
        [sys.executable, "-m", "foretell.cli", "audit"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert audited.returncode == 0, audited.stdout

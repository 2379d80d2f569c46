"""The tutorials do what they say: their code is taken from the page and run as it stands there."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lean_python import build_wheel, install
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


@pytest.fixture
def environment(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An installation of its own in a folder of the reader's: ports, and the commands that are on the path.

    The tests' own packages (pandas, say) are not there: only the product's, and those that the page tells to install.
    """
    (named,) = re.findall(r"^pip install \S*foretell (.+)$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE)
    python = install(tmp_path / ".venv", build_wheel(tmp_path_factory.mktemp("wheel")), *named.split())
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
    services = ("APP", "MODEL", "PREPROCESSING", "MONITORING")
    environment = {
        **inherited,
        **{f"FORETELL_{name}_PORT": str(free_port()) for name in services},
        "PATH": os.pathsep.join([str(python.parent), inherited.get("PATH", "")]),
    }
    yield environment
    subprocess.run([python, "-m", "foretell.cli", "down"], env=environment, cwd=tmp_path, check=False)


@pytest.mark.timeout(600)
def test_a_fresh_model_becomes_a_paid_prediction(tmp_path: Path, environment: dict[str, str]) -> None:
    page = TUTORIAL.read_text(encoding="utf-8")
    # The first block installs, for which this test has no network.
    script = script_of(page[page.index("## 1.") :])
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
    # The new version costs what the one before did.
    before, after = (tomllib.loads((tmp_path / each / "model.toml").read_text()) for each in ("wine", "wine-1.1"))
    assert (after["version"], after["price_credits"], after["description"]) == ("1.1.0", 2, before["description"])
    assert "three growers" in after["description"]["en"]
    audited = subprocess.run(
        [tmp_path / ".venv" / "bin" / "foretell", "audit"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert audited.returncode == 0, audited.stdout

"""The tutorials do what they say: their code is taken from the page and run as it stands there."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system import free_port

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
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An installation of its own: folder, ports, and the commands that a reader has on the path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
    ports = {f"FORETELL_{name}_PORT": str(free_port()) for name in ("APP", "MODEL", "PREPROCESSING", "MONITORING")}
    environment = {
        **inherited,
        **ports,
        "FORETELL_DATA_DIR": str(tmp_path / "data"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")]),
    }
    yield environment
    subprocess.run([sys.executable, "-m", "foretell.cli", "down"], env=environment, cwd=tmp_path, check=False)


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

"""A virtual environment for each peer, made once from its pinned requirements."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "peers"


def python_of(peer: str) -> Path:
    """The Python of the peer's environment, made now if this version of its requirements has none yet.

    Uses uv if it is there, else venv and pip; both check the hashes. Raises `CalledProcessError` if an install fails.
    """
    requirements = HERE / f"{peer}_app" / "requirements.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    fingerprint = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = CACHE / f"{peer}-{version}-{fingerprint}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv")
    if uv:
        commands = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(requirements)],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(requirements)],
        ]
    for command in commands:
        # What it says goes where errors go: standard output is for figures.
        subprocess.run(command, check=True, timeout=600, stdout=sys.stderr)
    (folder / "complete").touch()
    return python


def pins_of(peer: str) -> dict[str, str]:
    """What the peer's requirements name directly, with versions."""
    lines = (HERE / f"{peer}_app" / "requirements.in").read_text().splitlines()
    pairs = (line.split(";")[0].strip().split("==") for line in lines if "==" in line)
    return {name: version for name, version in pairs}

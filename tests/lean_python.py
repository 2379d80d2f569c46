"""Environments as somebody has them who installed Foretell with pip, made without a network."""

import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

_ROOT = Path(__file__).parents[1]
_PAGE = Path("src", "foretell", "services", "app", "page", "built")


def build_wheel(folder: Path, *, page: bool = False) -> Path:
    """The wheel of this checkout, made in `folder`; with the page, which must have been built, or without."""
    sources = folder / "sources"
    left_out = shutil.ignore_patterns("__pycache__", *(() if page else (_PAGE.name,)))
    shutil.copytree(_ROOT / "src", sources / "src", ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(_ROOT / name, sources)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=sources, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(folder: Path, wheel: Path, *others: str) -> Path:
    """Make an environment in which pip has installed the wheel; returns its Python.

    What the wheel and the `others` (requirements) need are links to what is installed here, and nothing else is there.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (site_packages,) = folder.glob("lib/python*/site-packages")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    (ours,) = site_packages.glob("foretell-*.dist-info")
    for package in _needed([*(PathDistribution(ours).requires or ()), *others]).values():
        for top in {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site_packages / top).exists():
                (site_packages / top).symlink_to(Path(str(package.locate_file(top))))
    return python


def _needed(wanted: Iterable[str]) -> dict[str, Distribution]:
    """The installed packages that `pip install` of these requirements brings, by name."""
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(each), frozenset({""})) for each in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, extras_asked_for = waiting.pop()
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras_asked_for):
            continue
        extras = frozenset({"", *requirement.extras})
        if (requirement.name, extras) not in seen:
            seen.add((requirement.name, extras))
            package = distribution(requirement.name)
            found[package.name] = package
            waiting += [(Requirement(line), extras) for line in package.requires or ()]
    return found

"""Checks changes that were made by hand in the folder of models, before services read them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from foretell.inference.live import STAMP
from foretell.inference.package import ModelPackage, PackageBroken
from foretell.inference.registry import Registry, shipped_folder
from foretell.inference.traffic import FILE as TRAFFIC
from foretell.inference.traffic import TrafficBroken, problem_of, read_traffic


def problems_of_changes(
    folder: Path, *, load: Callable[[ModelPackage], None] | None = None, shipped: Path | None = None
) -> list[str]:
    """Problems of packages that changed since services last read `folder`, and of traffic.toml, as sentences.

    `load` loads the model of a changed package, and raises `PackageBroken`; without it packages are only read.
    A package that was already broken is ignored, because it must not prevent other changes.
    """
    registry = Registry.discover(shipped or shipped_folder(), folder)
    since_ns = _read_at_ns(folder)
    broken = [each for each in registry.unavailable if _changed(Path(each.name), since_ns)]
    return [
        *(f"{each.name}: {each.reason}" for each in broken),
        *_traffic_problems(folder, registry),
        *(_load_problems(folder, registry, since_ns, load) if load is not None else ()),
    ]


def _read_at_ns(folder: Path) -> int:
    """When the stamp of the folder was last touched, in nanoseconds of Unix time; 0: never."""
    try:
        return (folder / STAMP).stat().st_ctime_ns
    except OSError:
        return 0


def _changed(place: Path, since_ns: int) -> bool:
    """Whether a file of a package was changed, added or renamed since then."""
    # By the change time of the inode, because a copy may keep the old modification time.
    for root, folders, names in os.walk(place):
        folders[:] = [name for name in folders if name != "__pycache__"]
        paths = (root, *(os.path.join(root, name) for name in names))
        if any(os.lstat(path).st_ctime_ns >= since_ns for path in paths):
            return True
    return False


def _traffic_problems(folder: Path, registry: Registry) -> Iterator[str]:
    try:
        rules = read_traffic(folder)
    except TrafficBroken as error:
        yield f"{TRAFFIC}: {error}"
        return
    for model, split in rules.items():
        problem = problem_of(model, split, registry)
        if problem:
            yield f"{TRAFFIC} [{model}]: {problem}"


def _load_problems(
    folder: Path, registry: Registry, since_ns: int, load: Callable[[ModelPackage], None]
) -> Iterator[str]:
    for package in registry:
        if package.path.is_relative_to(folder) and _changed(package.path, since_ns):
            try:
                load(package)
            except PackageBroken as error:
                yield f"{package.name} {package.version}: {error.message}"
            except Exception as error:
                # A package may contain code that raises anything.
                yield f"{package.name} {package.version}: its loading failed: {type(error).__name__}: {error}."

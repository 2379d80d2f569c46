#!/usr/bin/env python3
"""Makes the small lock of each image from requirements.lock: what one service needs, with the hashes that stand there.

    .venv/bin/python deploy/docker/locks.py            writes deploy/docker/locks/*.lock
    .venv/bin/python deploy/docker/locks.py --check    ends with 1 where one of them is not what it would write

Nothing is asked of a registry: what a package needs is read from the packages installed here, which have the versions
of the lock.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent / "locks"
PROJECT = "foretell"

#: The dependency groups of each image. `cli` has the command that each of them starts.
IMAGES = {
    "app": ("app", "cli"),
    "bot": ("bot", "cli"),
    "dispatcher": ("dispatcher", "cli"),
    "ml-worker": ("worker", "cli"),
    "model-service": ("model", "cli"),
    "monitoring-service": ("monitoring", "cli"),
    "preprocessing-service": ("preprocessing", "cli"),
}

#: What makes the wheel that all of them install.
BUILD = "build"
_BUILD_BACKEND = "hatchling"

#: Where images run: any Python that we allow, on both kinds of machines.
_MACHINES = [
    {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0", "platform_machine": machine}
    for minor in (11, 12, 13)
    for machine in ("x86_64", "aarch64")
]
_LINUX = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
_HEAD = "# Made by deploy/docker/locks.py from requirements.lock: what the image {image} installs.\n"


def locked() -> dict[str, list[str]]:
    """What requirements.lock says of each package: its entries (there may be one for each range of Pythons)."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries: dict[str, list[str]] = {}
    for entry in re.findall(r"^[a-zA-Z0-9].*?(?=^[a-zA-Z0-9]|\Z)", text, re.MULTILINE | re.DOTALL):
        entries.setdefault(canonicalize_name(entry.partition("==")[0]), []).append(entry)
    return entries


def _wanted(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Whether a package with these extras brings the requirement along on any machine that runs images."""
    if requirement.marker is None:
        return True
    environments = [{**default_environment(), **_LINUX, **machine} for machine in _MACHINES]
    return any(
        requirement.marker.evaluate({**environment, "extra": extra})
        for environment in environments
        for extra in (*extras, "")
    )


def _grouped(groups: Mapping[str, list[str | dict[str, str]]], name: str) -> Iterator[str]:
    """The requirements of a dependency group of pyproject.toml, and of those that it includes."""
    for entry in groups[name]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _grouped(groups, entry["include-group"])


def _requirements_of(name: str, extras: Iterable[str]) -> Iterator[Requirement]:
    """What a package needs with these extras; what Foretell needs with these dependency groups."""
    if name == PROJECT:
        groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
        texts = [text for group in extras for text in _grouped(groups, group)]
    else:
        try:
            texts = distribution(name).requires or []
        except PackageNotFoundError:
            sys.exit(
                f"{name} is not installed here, so nobody knows what it needs: python start.py --test installs it."
            )
    for text in texts:
        requirement = Requirement(text)
        if _wanted(requirement, extras):
            yield requirement


def needed(extras: Iterable[str], *, root: str = PROJECT) -> set[str]:
    """The packages that foretell needs with these groups (or another `root` with these extras), without foretell."""
    waiting = [(root, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        package = waiting.pop()
        if package not in seen:
            seen.add(package)
            waiting += [(canonicalize_name(each.name), frozenset(each.extras)) for each in _requirements_of(*package)]
    return {name for name, _ in seen} - {PROJECT}


def lock_of(image: str) -> str:
    """The small lock of an image."""
    entries = locked()
    names = needed((), root=_BUILD_BACKEND) if image == BUILD else needed(IMAGES[image])
    return _HEAD.format(image=image) + "".join(entry for name in sorted(names) for entry in entries[name])


def main(arguments: list[str]) -> int:
    """Write the locks, or with `--check` only compare them."""
    stale = []
    for image in (*IMAGES, BUILD):
        place, text = FOLDER / f"{image}.lock", lock_of(image)
        if place.is_file() and place.read_text(encoding="utf-8") == text:
            continue
        stale.append(place.name)
        if "--check" not in arguments:
            FOLDER.mkdir(exist_ok=True)
            place.write_text(text, encoding="utf-8")
    print(f"{', '.join(stale) or 'No lock'} {'differed' if '--check' in arguments else 'written'}.")
    return int("--check" in arguments and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A registry that changes while requests are served.

`foretell models add`, `remove` and `reload` touch a stamp in the operator's folder. Every running service checks it
once a second and reads the folders again when it has changed. A request keeps the package that it began with. A
task for a version that was removed meanwhile still finds it for an hour.

An invalid change replaces nothing. A package that can't be read or loaded any more is served as it was before the
change. If a rule of traffic.toml does not fit the packages, the previous rule stays in force; without a previous one,
the valid part of the new one applies. Both are listed in `unavailable`.
"""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken, load_package
from foretell.inference.registry import (
    ModelNotFound,
    Registry,
    UnavailablePackage,
    read_packages,
    shipped_folder,
)
from foretell.inference.traffic import FILE as TRAFFIC
from foretell.inference.traffic import Split, TrafficBroken, problem_of, read_traffic, without_misfits
from foretell.kit.clock import uuid7

log = structlog.get_logger(__name__)

STAMP = ".reload"
#: Added to the reason if a package has changed and can't be used.
SERVED_AS_BEFORE = "Until that is mended it is served as it was before."
_LOOK_EVERY_S = 1.0
#: How long a prediction may wait for a worker.
_RETIRED_FOR_S = 3600.0

#: Names, times and sizes of the files of a package.
_Signature = tuple[tuple[str, int, int], ...]


def operators_folder(models_dir: Path | None, data_dir: Path) -> Path:
    """The folder of the operator's packages: FORETELL_MODELS_DIR, or `models` in the data folder."""
    return models_dir if models_dir is not None else data_dir / "models"


def touch_stamp(folder: Path) -> str:
    """Make every service that uses `folder` read it again. Returns the stamp."""
    stamp = uuid7().hex
    draft = folder / f"{STAMP}.{os.getpid()}"
    # The content changes, too, not only the time, because times of shared file systems are coarse.
    draft.write_text(stamp, encoding="ascii")
    draft.replace(folder / STAMP)
    return stamp


def read_stamp(folder: Path) -> str:
    """The stamp of `folder`; empty if nothing was ever added."""
    with suppress(OSError, UnicodeDecodeError):
        return (folder / STAMP).read_text(encoding="ascii")
    return ""


class LiveRegistry(Registry):
    """The current packages, shipped ones and the operator's. Thread-safe."""

    def __init__(self, operators: Path, *, shipped: Path | None = None, must_exist: bool = True) -> None:
        """Reads both folders. `must_exist`: whether a missing `operators` folder is reported."""
        super().__init__([])
        self.folder = operators
        self._shipped = shipped or shipped_folder()
        self._must_exist = must_exist
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[_Signature, ModelPackage]] = {}
        self._retired: dict[tuple[str, str], tuple[float, ModelPackage]] = {}
        self._stand_ins: dict[tuple[str, str], ModelPackage] = {}
        #: The rules in force, by model; None before the first read.
        self._traffic: Mapping[str, Split] | None = None
        #: Incremented by each `refresh`, so that code with cached values notices a change.
        self.generation = 0
        self._seen = ""
        self.refresh()
        #: The stamp of the change that this process has begun to apply ...
        self._noticed = self._seen
        #: ... and of the change that is applied, including loading; `models_stamp` in `/health`.
        self.followed = self._seen

    @classmethod
    def installed(cls, models_dir: Path | None, data_dir: Path) -> "LiveRegistry":
        """The registry of a service with these settings; the default folder may be missing."""
        return cls(operators_folder(models_dir, data_dir), must_exist=models_dir is not None)

    @property
    def traffic(self) -> Mapping[str, Split]:
        """The rules in force, by model. Their versions are installed and take the same input as the default one."""
        return self._traffic or {}

    def resolve(self, name: str, version: str) -> ModelPackage:
        """A version that is installed, was just installed, or was removed within the last hour.

        If its files have changed, it is the previous package until the new one is loaded (`serve_before`).
        Raises `ModelNotFound`, `VersionNotFound`.
        """
        with suppress(ModelNotFound):
            package = self.get(name, version)
            return self._stand_ins.get((name, version), package)
        self.refresh_if_told()
        with suppress(ModelNotFound):
            return self.get(name, version)
        retired = self._retired.get((name, version))
        return retired[1] if retired is not None else self.get(name, version)

    def serve_before(self, before: ModelPackage) -> None:
        """Let `resolve` return this version as it was before its files changed, until `serve` is called."""
        self._stand_ins[before.name, before.version] = before

    def serve(self, package: ModelPackage) -> None:
        """Let `resolve` return this version as it is installed now."""
        self._stand_ins.pop((package.name, package.version), None)

    def stand_in(self, package: ModelPackage) -> ModelPackage | None:
        """The package that is served in place of an installed one, or None."""
        return self._stand_ins.get((package.name, package.version))

    def refresh_if_told(self) -> bool:
        """Read the folders again if the stamp was touched; returns whether it was."""
        with self._lock:
            # Checked inside the lock, so that a second thread waits for the first one's result.
            if self._stamp() == self._seen:
                return False
            self._refresh()
            return True

    def refresh(self) -> None:
        """Read the folders again. Packages with unchanged files stay the same objects."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        # Read before the folders, so that a change in between is found the next time.
        self._seen = self._stamp()
        folders = [self._shipped]
        if self._must_exist or self.folder.exists():
            folders.append(self.folder)
        problems: list[UnavailablePackage] = []
        packages, unavailable = read_packages(folders, partial(self._read, problems))
        unavailable += problems
        self._traffic = self._rules(Registry(packages), unavailable)
        defaults = {name: split.default for name, split in self._traffic.items() if split.default}
        before = {(package.name, package.version): package for package in self}
        self._found = Registry(packages, unavailable, defaults=defaults)._found
        self.generation += 1
        self._retire(before)
        there = {package.path for package in self}
        self._known = {place: known for place, known in self._known.items() if place in there}

    def _rules(self, packages: Registry, unavailable: list[UnavailablePackage]) -> dict[str, Split]:
        """The rules in force with these packages. Mistakes in the file are added to `unavailable`."""
        before = self.traffic
        try:
            rules = read_traffic(self.folder)
        except TrafficBroken as error:
            unavailable.append(UnavailablePackage(TRAFFIC, str(error)))
            rules = dict(before)
        holding: dict[str, Split] = {}
        for model, split in rules.items():
            problem = problem_of(model, split, packages)
            if problem:
                unavailable.append(UnavailablePackage(f"{TRAFFIC} [{model}]", problem))
                # Without a previous rule, use the valid part of the new one. The previous rule may also name a version
                # that was removed.
                holding[model] = without_misfits(model, before.get(model, split), packages)
            else:
                holding[model] = split
        return holding

    def _retire(self, before: dict[tuple[str, str], ModelPackage]) -> None:
        now = time.monotonic()
        there = {(package.name, package.version) for package in self}
        retired = {key: (now, package) for key, package in before.items() if key not in there}
        earlier = {key: each for key, each in self._retired.items() if now - each[0] < _RETIRED_FOR_S}
        self._retired = {**earlier, **retired}
        self._stand_ins = {key: package for key, package in self._stand_ins.items() if key in there}

    @property
    def kept(self) -> list[ModelPackage]:
        """Every package that a task may still need: installed ones, stand-ins, and recently removed ones."""
        return [*self, *self._stand_ins.values(), *(package for _, package in self._retired.values())]

    def _read(self, problems: list[UnavailablePackage], place: Path) -> ModelPackage:
        signature = _signature(place)
        known = self._known.get(place)
        if known is not None and known[0] == signature:
            return known[1]
        try:
            package = load_package(place)
        except (PackageBroken, OSError) as error:
            if known is None or not (place / MANIFEST).is_file():
                raise
            # Broken by a change; it is read again the next time, since its signature is unknown.
            reason = error.message if isinstance(error, PackageBroken) else f"The package cannot be read: {error}."
            problems.append(UnavailablePackage(str(place), f"{reason} {SERVED_AS_BEFORE}"))
            return known[1]
        self._known[place] = (signature, package)
        return package

    def _stamp(self) -> str:
        return read_stamp(self.folder)

    async def watch(self, on_change: Callable[[], Awaitable[asyncio.Task[None] | None]]) -> None:
        """Check the stamp until cancelled; `on_change` runs after the folders were read again.

        `on_change` may return a task for slow work: the change is applied when the task is done, and the next change
        is noticed meanwhile.
        """
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await asyncio.to_thread(self.refresh_if_told)
                seen = self._seen
                if seen != self._noticed:
                    log.info("models_reread", models=[f"{package.name} {package.version}" for package in self])
                    self.log_unavailable()
                    rest = await on_change()
                    self._noticed = seen
                    if rest is None:
                        self.followed = seen
                    else:
                        rest.add_done_callback(partial(self._end_following, seen))
            except Exception:
                # The watch must not end, or later changes would not be noticed.
                log.exception("models_not_reread")

    def _end_following(self, seen: str, rest: asyncio.Task[None]) -> None:
        if not rest.cancelled() and (error := rest.exception()) is not None:
            log.error("models_not_reread", exc_info=error)
        elif seen == self._noticed:
            # Otherwise a later change is being applied, which includes this one.
            self.followed = seen

    def log_unavailable(self) -> None:
        """One warning for each package that cannot be served."""
        for package in self.unavailable:
            log.warning("model_unavailable", model=package.name, reason=package.reason)


def _signature(place: Path) -> _Signature:
    files = []
    for root, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            file = Path(root, name)
            # For a broken link, use the link itself.
            about = file.lstat() if file.is_symlink() and not file.exists() else file.stat()
            files.append((str(file.relative_to(place)), about.st_mtime_ns, about.st_size))
    return tuple(files)

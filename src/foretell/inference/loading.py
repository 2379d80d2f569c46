"""Loads models in the background, so that a slow load does not delay other models."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import structlog

from foretell.inference.engine import Engine
from foretell.inference.live import SERVED_AS_BEFORE, LiveRegistry
from foretell.inference.package import ModelPackage, PackageBroken
from foretell.inference.registry import ModelNotFound
from foretell.kit.offloading import in_thread

log = structlog.get_logger()

#: When a load takes longer than this, the next one begins ...
SLOW_AFTER_S = 2.0
#: ... unless this many are running: each needs memory and processor time.
AT_ONCE = 8


class State(Enum):
    """The state of a model version in this process."""

    READY = "ready"
    LOADING = "loading"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Unloadable:
    """Why a package can't be loaded."""

    #: For operators: with the place and a remedy.
    reason: str
    #: For users.
    in_short: str


@dataclass(frozen=True, slots=True)
class _UnderWay:
    package: ModelPackage
    since: float
    task: asyncio.Task[None]


async def try_to_load(load: Callable[[], object]) -> Unloadable | None:
    """Call `load` in a new thread; returns the reason if it fails. Never raises its errors."""

    def attempt() -> Unloadable | None:
        try:
            load()
        except PackageBroken as error:
            return Unloadable(error.message, f"{error.details['what']}.")
        except BaseException as error:
            # Code of a package may raise anything, for example SystemExit.
            log.exception("model_load_failed")
            reason = f"Its loading failed: {type(error).__name__}."
            return Unloadable(reason, reason)
        return None

    return await in_thread(attempt)


async def side_by_side(
    loads: Iterable[Callable[[], asyncio.Task[None]]],
    *,
    slow_after_s: float = SLOW_AFTER_S,
    at_once: int = AT_ONCE,
) -> None:
    """Start one load after the other, the next when the last has ended or is slow; return when all have ended.

    One after the other, because parallel loads import in parallel and need memory at the same time; but fast loads do
    not wait for a slow one.
    """
    running: set[asyncio.Task[None]] = set()
    for load in loads:
        while len(running) >= at_once:
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        task = load()
        await asyncio.wait({task}, timeout=slow_after_s)
        running = {each for each in {*running, task} if not each.done()}
    if running:
        await asyncio.wait(running)


class Loading:
    """Loads the models of an engine, and reports the progress."""

    def __init__(
        self,
        engine: Engine,
        registry: LiveRegistry,
        *,
        changed: Callable[[], None] = lambda: None,
        slow_after_s: float = SLOW_AFTER_S,
        at_once: int = AT_ONCE,
    ) -> None:
        """`changed` is called whenever a model begins to load, is loaded, or fails to load."""
        self._engine = engine
        self._registry = registry
        self._changed = changed
        self._slow_after_s = slow_after_s
        self._at_once = at_once
        # Keyed by the identity of the packages, as in the engine.
        self._ready: dict[int, ModelPackage] = {}
        self._failed: dict[int, tuple[ModelPackage, Unloadable]] = {}
        self._under_way: dict[int, _UnderWay] = {}
        self._waiting: dict[int, ModelPackage] = {}

    async def follow(self) -> None:
        """Load the current packages of the registry, unload others; return when all were tried.

        Packages that failed before are tried again. May be called again before it returns.
        """
        self._failed = {}
        missing = [package for package in self._registry if id(package) not in self._ready]
        for package in missing:
            self._serve_before(package)
        self._waiting |= {id(package): package for package in missing if id(package) not in self._under_way}
        await side_by_side(
            [partial(self._begin, package) for package in missing],
            slow_after_s=self._slow_after_s,
            at_once=self._at_once,
        )
        kept = list(self._registry.kept)
        self._engine.keep_only(kept)
        identities = {id(package) for package in kept}
        self._ready = {key: package for key, package in self._ready.items() if key in identities}

    def state(self, model: str, version: str) -> State:
        """The state of a version. One that is not installed is ready: the engine reports at once that it is unknown.

        Starts loading a version that was just installed. A version with changed files is ready, with its previous
        package.
        """
        try:
            package = self._registry.resolve(model, version)
        except ModelNotFound:
            return State.READY
        if id(package) in self._ready:
            return State.READY
        if self._serve_before(package):
            return State.READY
        if id(package) in self._failed:
            return State.FAILED
        if id(package) not in self._waiting:
            self._begin(package)
        return State.LOADING

    def reason(self, model: str, version: str) -> str:
        """Why a version that is `FAILED` can't be loaded, in the form for users; empty for others."""
        _, why = self._failed.get(id(self._registry.resolve(model, version)), (None, None))
        return "" if why is None else why.in_short

    @property
    def under_way(self) -> bool:
        """Whether a load is running."""
        return bool(self._under_way)

    @property
    def ready(self) -> list[ModelPackage]:
        """The loaded packages, by name, oldest version first."""
        served = [self._registry.stand_in(package) or package for package in self._registry]
        return [package for package in served if id(package) in self._ready]

    def details(self) -> dict[str, Any]:
        """The fields of `/health` about models; `loading` has the seconds since each load began."""
        now = time.monotonic()
        return {
            "models": [_title(package) for package in self.ready],
            "loading": {_title(each.package): round(now - each.since, 1) for each in self._under_way.values()}
            | {_title(package): 0.0 for package in self._waiting.values()},
            "unavailable": {package.name: package.reason for package in self._registry.unavailable}
            | {_title(package): self._reason_of(package, why) for package, why in self._failed.values()},
        }

    def _reason_of(self, package: ModelPackage, why: Unloadable) -> str:
        return f"{why.reason} {SERVED_AS_BEFORE}" if self._registry.stand_in(package) else why.reason

    def _serve_before(self, package: ModelPackage) -> bool:
        """Serve the previous package of a version with changed files until it is loaded; whether there is one."""
        for before in self._ready.values():
            if (before.name, before.version) == (package.name, package.version) and before is not package:
                self._registry.serve_before(before)
                return True
        return False

    def _begin(self, package: ModelPackage) -> asyncio.Task[None]:
        self._waiting.pop(id(package), None)
        under_way = self._under_way.get(id(package))
        if under_way is None:
            task = asyncio.create_task(self._load(package))
            under_way = self._under_way[id(package)] = _UnderWay(package, time.monotonic(), task)
            self._changed()
        return under_way.task

    async def _load(self, package: ModelPackage) -> None:
        key = package.name, package.version
        try:
            why = await try_to_load(partial(self._engine.warm_package, package))
        finally:
            del self._under_way[id(package)]
        if why is None:
            others = [each for each in self._ready.values() if (each.name, each.version) != key]
            self._ready = {id(each): each for each in (*others, package)}
            self._registry.serve(package)
        else:
            log.error("model_not_loaded", model=package.name, version=package.version, reason=why.reason)
            self._failed[id(package)] = package, why
        self._changed()


def _title(package: ModelPackage) -> str:
    return f"{package.name} {package.version}"

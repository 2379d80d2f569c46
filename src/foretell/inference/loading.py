"""Loads models beside the calls of those that are loaded, so that one that takes minutes holds up nobody else."""

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

#: A load that takes longer than this does not keep the next one from beginning ...
SLOW_AFTER_S = 2.0
#: ... unless this many are under way: each needs memory and processor time.
AT_ONCE = 8


class State(Enum):
    """How a model version is in this process."""

    READY = "ready"
    LOADING = "loading"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Unloadable:
    """Why a package can't be loaded."""

    #: For the operator: where, and what to do about it.
    reason: str
    #: For anybody.
    in_short: str


@dataclass(frozen=True, slots=True)
class _UnderWay:
    package: ModelPackage
    since: float
    task: asyncio.Task[None]


async def try_to_load(load: Callable[[], object]) -> Unloadable | None:
    """Call `load` in a thread of its own; returns why it failed. Never raises for what it does."""

    def attempt() -> Unloadable | None:
        try:
            load()
        except PackageBroken as error:
            return Unloadable(error.message, f"{error.details['what']}.")
        except BaseException as error:
            # A package can bring code of its own, and that may do anything: exit, for one.
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
    """Begin one load after the other, the next when the last is over or slow; return when all are over.

    One after the other, because what loads at the same time imports at the same time and needs the memory at the same
    time; but the fast ones do not wait for a slow one.
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
    """Loads the models of an engine, and says how far it is."""

    def __init__(
        self,
        engine: Engine,
        registry: LiveRegistry,
        *,
        changed: Callable[[], None] = lambda: None,
        slow_after_s: float = SLOW_AFTER_S,
        at_once: int = AT_ONCE,
    ) -> None:
        """`changed` is called whenever a model begins to load, is loaded, or can't be."""
        self._engine = engine
        self._registry = registry
        self._changed = changed
        self._slow_after_s = slow_after_s
        self._at_once = at_once
        # By the identity of the packages, as in the engine.
        self._ready: dict[int, ModelPackage] = {}
        self._failed: dict[int, tuple[ModelPackage, Unloadable]] = {}
        self._under_way: dict[int, _UnderWay] = {}
        self._waiting: dict[int, ModelPackage] = {}

    async def follow(self) -> None:
        """Load what the registry has now, let go what it no longer keeps; return when all was tried.

        What could not be loaded before is tried again. May be called again before it returns.
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
        """How a version is. One that is not installed is ready: the engine says at once that it is not there.

        A version that was installed a moment ago, and that is not being loaded yet, begins to load. One whose files
        changed is ready as it was before.
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
        """Why a version that is `FAILED` can't be loaded, for anybody; empty for others."""
        _, why = self._failed.get(id(self._registry.resolve(model, version)), (None, None))
        return "" if why is None else why.in_short

    @property
    def under_way(self) -> bool:
        """Whether anything is being loaded at this moment."""
        return bool(self._under_way)

    @property
    def ready(self) -> list[ModelPackage]:
        """What is loaded and served, by name, oldest version first."""
        served = [self._registry.stand_in(package) or package for package in self._registry]
        return [package for package in served if id(package) in self._ready]

    def details(self) -> dict[str, Any]:
        """What `/health` says of the models; `loading` says for how many seconds each has been loading."""
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
        """Serve a version that is not loaded as it was before its files changed; whether it was loaded then."""
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

"""The models of this process: loads, unloads and replaces them without interrupting requests."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Literal

import structlog

from foretell.inference.live import LiveRegistry
from foretell.inference.loading import SLOW_AFTER_S, side_by_side, try_to_load
from foretell.inference.measures import show_loaded
from foretell.inference.observing import Watch, unwatched
from foretell.inference.package import ModelPackage
from foretell.inference.runtimes import Runtime, load_runtime
from foretell.inference.traffic import Split
from foretell.kit.errors import ForetellError
from foretell.kit.offloading import in_thread
from foretell.kit.randomness import RANDOM
from foretell.services.model.calls import ModelCalls

log = structlog.get_logger()

_LOADING = "It is being loaded."
_UNLOADED = "It was unloaded."
_CHANGED = "It has changed meanwhile."


class ModelNotReady(ForetellError):
    """The model {model} {version} is not ready. {reason}"""

    code = "model_not_ready"
    status = 503
    retry_after_s = 5.0


class ModelLoading(ModelNotReady):
    """The model {model} {version} is not ready. It is being loaded."""


class ModelNotLoaded(ForetellError):
    """The model {model} can't be loaded. {reason}"""

    code = "model_not_loaded"
    status = 400


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The state of one version of a model."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    #: Why it is not ready; empty if it is.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    package: ModelPackage
    since: float
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Canaries:
    """Versions of one model that share the requests without a version, and their cumulative weights."""

    calls: list[ModelCalls]
    bounds: list[float]

    def draw(self) -> ModelCalls:
        return RANDOM.choices(self.calls, cum_weights=self.bounds)[0]


class Models:
    """The models of `registry`. Each package has its own `ModelCalls`: requests to a replaced one can finish."""

    def __init__(
        self,
        registry: LiveRegistry,
        *,
        load: Callable[[ModelPackage], Runtime] = load_runtime,
        watch: Watch = unwatched,
        clock: Callable[[], float] = time.thread_time,
        slow_after_s: float = SLOW_AFTER_S,
    ) -> None:
        """`watch` observes the calls of a model (see inference/observing.py); `clock` times the calls.

        After `slow_after_s`, the next load begins beside a load that is still running.
        """
        self.registry = registry
        self._load = load
        self._watch = watch
        self._clock = clock
        self._slow_after_s = slow_after_s
        #: By name and version; the default version also by name and None.
        self._ready: dict[tuple[str, str | None], ModelCalls] = {}
        self._canaries: dict[str, _Canaries] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        self._unloaded: set[str] = set()
        #: The loads under way, by name and version.
        self._under_way: dict[tuple[str, str], _UnderWay] = {}
        #: Whether every load has succeeded or failed.
        self.all_tried = False

    def get(self, name: str, version: str | None = None) -> ModelCalls:
        """A model that is ready; without `version` the default one, or a draw by the weights in `traffic.toml`.

        Raises `ModelNotFound`, `ModelLoading` and `ModelNotReady`.
        """
        if version is None and name in self._canaries:
            return self._canaries[name].draw()
        calls = self._ready.get((name, version))
        if calls is None:
            package = self.registry.get(name, version)
            reason = self._reason(package)
            if reason is None:
                raise ModelLoading(model=name, version=package.version)
            raise ModelNotReady(model=name, version=package.version, reason=reason)
        return calls

    def package(self, name: str, version: str | None = None) -> ModelPackage:
        """The package of a model: the one that is served, else the installed one. Raises `ModelNotFound`."""
        calls = self._ready.get((name, version))
        return self.registry.get(name, version) if calls is None else calls.package

    def status(self, name: str, version: str | None = None) -> ModelStatus:
        """The state of a model. Raises `ModelNotFound`."""
        package = self.package(name, version)
        if (name, package.version) in self._ready:
            return ModelStatus(name, package.version, "READY")
        reason = self._reason(package)
        return ModelStatus(name, package.version, "UNAVAILABLE" if reason else "LOADING", reason or _LOADING)

    @property
    def statuses(self) -> list[ModelStatus]:
        """The state of each version of each model."""
        return [self.status(package.name, package.version) for package in self.registry]

    @property
    def unavailable(self) -> dict[str, str]:
        """Why installed versions can't be served. An earlier package of the same version may still be served."""
        unread = {package.name: package.reason for package in self.registry.unavailable}
        reasons = {f"{package.name} {package.version}": self._reason(package) for package in self.registry}
        return unread | {title: reason for title, reason in reasons.items() if reason}

    def _reason(self, package: ModelPackage) -> str | None:
        """Why a package is not served; None if it is or will be."""
        # A version that was installed while its model was unloaded is not loaded either.
        return _UNLOADED if package.name in self._unloaded else self._reasons.get((package.name, package.version))

    @property
    def hanging(self) -> list[str]:
        """The models with a call that has exceeded its time limit and not returned."""
        return sorted({calls.package.name for calls in self._ready.values() if calls.hangs})

    @property
    def loading(self) -> dict[str, float]:
        """The seconds since the load of each version began; 0 for a load that is waiting."""
        now = time.monotonic()
        loading = {}
        for status in self.statuses:
            under_way = self._under_way.get((status.name, status.version))
            if under_way is not None or status.state == "LOADING":
                since = now if under_way is None else under_way.since
                loading[f"{status.name} {status.version}"] = round(now - since, 1)
        return loading

    async def follow(self) -> None:
        """Follow the registry: load new and changed packages, drop removed ones. Never raises because of a package.

        A failed load is logged and is the reason in `ModelNotReady`; the package to be replaced stays in use. Each
        package is served as soon as it is loaded. Returns after all loads; may be called again before that.
        """
        self._settle()
        # A lazy generator, because a model may be unloaded or loaded while others are being loaded.
        loads = (
            partial(self._begin, package)
            for package in list(self.registry)
            if package.name not in self._unloaded and not self._is_served(package)
        )
        await side_by_side(loads, slow_after_s=self._slow_after_s)
        self._settle()
        self.all_tried = True

    async def load(self, name: str) -> None:
        """Load all versions of a model from the disk, and replace changed ones.

        Raises `ModelNotFound` and `ModelNotLoaded`; then the earlier packages stay in use.
        """
        await in_thread(self.registry.refresh)
        versions = self.registry.versions(name)
        self._unloaded.discard(name)
        failed: list[str] = []
        try:
            for version in versions:
                package = self.registry.get(name, version)
                if not self._is_served(package):
                    await asyncio.wait({self._begin(package)})
                    if not self._is_served(package):
                        failed.append(self._reasons.get((name, version), _CHANGED))
        finally:
            self._settle()
        if failed:
            raise ModelNotLoaded(model=name, reason=failed[0])

    async def unload(self, name: str) -> None:
        """Stop serving all versions of a model until it is loaded again. Requests under way finish.

        Raises `ModelNotFound`.
        """
        self.registry.versions(name)
        self._unloaded.add(name)
        self._reasons = {key: reason for key, reason in self._reasons.items() if key[0] != name}
        self._settle()
        log.info("model_unloaded", model=name)

    def _is_served(self, package: ModelPackage) -> bool:
        calls = self._ready.get((package.name, package.version))
        return calls is not None and calls.package is package

    def _begin(self, package: ModelPackage) -> asyncio.Task[None]:
        key = package.name, package.version
        under_way = self._under_way.get(key)
        if under_way is None or under_way.package is not package:
            self._reasons.pop(key, None)
            task = asyncio.create_task(self._load_package(package))
            under_way = self._under_way[key] = _UnderWay(package, time.monotonic(), task)
        return under_way.task

    async def _load_package(self, package: ModelPackage) -> None:
        key = package.name, package.version
        calls = ModelCalls(package, load=self._load, watch=self._watch, clock=self._clock)
        try:
            why = await try_to_load(calls.warm)
        finally:
            is_latest = self._under_way[key].package is package
            if is_latest:
                del self._under_way[key]
        if not is_latest:
            # The package has changed during its load, and another load is under way.
            return
        if why is not None:
            log.error("model_not_loaded", model=package.name, version=package.version, reason=why.reason)
        if package.name not in self._unloaded:
            if why is not None:
                self._reasons[key] = why.reason
            else:
                # Serve it at once; do not wait for the other loads.
                self._ready[key] = calls
                self._reasons.pop(key, None)
            self._settle()

    def _settle(self) -> None:
        """Drop models that must not be served, and choose the versions for requests without a version."""
        installed = {(package.name, package.version) for package in self.registry}
        ready: dict[tuple[str, str | None], ModelCalls] = {}
        for (name, version), calls in self._ready.items():
            # Entries under None are set again, since they may be packages that were replaced.
            if (name, version) in installed and name not in self._unloaded:
                ready[name, version] = calls
                if self.registry.default_versions[name] == version:
                    ready[name, None] = calls
        for (name, version), calls in self._ready.items():
            # While a new default version is being loaded, the earlier one stays the default.
            still_there = version is None and (name, calls.package.version) in ready
            if still_there and (name, self.registry.default_versions[name]) not in self._reasons:
                ready.setdefault((name, None), calls)
        canaries = {}
        for name, split in self.registry.traffic.items():
            default = ready.get((name, None))
            shared = None if default is None else _share(default, split, ready)
            if shared is not None:
                canaries[name] = shared
        self._ready, self._canaries = ready, canaries
        show_loaded(calls.package for calls in ready.values())


def _share(default: ModelCalls, split: Split, ready: dict[tuple[str, str | None], ModelCalls]) -> _Canaries | None:
    """The versions that share requests without a version. Each must be ready and have the default's input schemas."""
    calls: list[ModelCalls] = []
    parts: list[float] = []
    for version, weight in split.weights.items():
        canary = ready.get((default.package.name, version))
        if canary is None or _taken(canary.package) != _taken(default.package):
            log.warning("traffic_rule_ignored", model=default.package.name, version=version)
            continue
        calls.append(canary)
        parts.append(weight)
    return _Canaries(calls, list(accumulate(parts))) if any(parts) else None


def _taken(package: ModelPackage) -> tuple[object, object]:
    return package.input_schema, package.features_schema

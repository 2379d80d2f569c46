"""The preprocessing of every installed model, without loading the models."""

from dataclasses import dataclass
from typing import Any

import structlog

from foretell.contracts.messages import Failure
from foretell.inference.engine import Engine
from foretell.inference.package import ModelPackage, PackageBroken
from foretell.inference.registry import Registry
from foretell.kit.errors import ForetellError
from foretell.kit.offloading import Offloading, StillBusy

log = structlog.get_logger()

Row = dict[str, Any]


class PreprocessingUnavailable(ForetellError):
    """The preprocessing of {model} {version} can't be used. {reason}"""

    code = "preprocessing_unavailable"
    status = 503
    retry_after_s = 10.0


class PreprocessingTimeout(ForetellError):
    """The preprocessing of {model} did not end within {timeout_s} s."""

    code = "timeout"
    status = 504


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """The preprocessing of one package. `reason` is why it can't be used; empty if it can."""

    package: ModelPackage
    engine: Engine
    offloading: Offloading
    reason: str = ""

    async def run(self, rows: list[Any]) -> list[Row | Failure]:
        """The features or the failure of each row. Raises `PreprocessingUnavailable`, `PreprocessingTimeout`."""
        package = self.package
        if self.reason:
            raise PreprocessingUnavailable(model=package.name, version=package.version, reason=self.reason)
        try:
            return await self.offloading.run(len(rows), lambda: self.engine.preprocess(package, rows))
        except StillBusy:
            reason = "It hangs since an earlier call; ask the operator to restart the service."
            raise PreprocessingUnavailable(model=package.name, version=package.version, reason=reason) from None
        except TimeoutError:
            log.error("preprocessing_timed_out", model=package.name, version=package.version, rows=len(rows))
            raise PreprocessingTimeout(model=package.name, timeout_s=package.timeout_s) from None


class Preprocessors:
    """One `Preprocessor` for each package of `registry`. The constructor runs the packages' code."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._engine = Engine(registry)
        self._made: dict[int, Preprocessor] = {}
        self.refresh()

    def refresh(self) -> None:
        """Follow the registry: try new and changed packages, drop removed ones. Blocks."""
        # By object identity: a package whose files have changed is another object.
        self._made = {
            id(package): self._made.get(id(package))
            or Preprocessor(package, self._engine, Offloading(timeout_s=package.timeout_s), _try(self._engine, package))
            for package in self.registry
        }
        self._engine.keep_only(made.package for made in self._made.values())

    def get(self, name: str, version: str | None = None) -> Preprocessor:
        """The preprocessing of a model, by default of its default version.

        Raises `ModelNotFound`, and `PreprocessingUnavailable` for a package that was just installed.
        """
        package = self.registry.get(name, version)
        made = self._made.get(id(package))
        if made is None:
            raise PreprocessingUnavailable(model=name, version=package.version, reason="It came a moment ago.")
        return made

    @property
    def unavailable(self) -> dict[str, str]:
        """The reasons of versions that can't be used and packages that can't be read."""
        return {package.name: package.reason for package in self.registry.unavailable} | {
            f"{made.package.name} {made.package.version}": made.reason for made in self._made.values() if made.reason
        }

    @property
    def hanging(self) -> list[str]:
        """The models whose preprocessing has exceeded its time limit and not returned."""
        return sorted({made.package.name for made in self._made.values() if made.offloading.overdue})


def _try(engine: Engine, package: ModelPackage) -> str:
    """Preprocess the first example, so that the first request is fast; returns the reason if it fails."""
    inputs = [example.input for example in package.examples if example.input is not None][:1]
    try:
        engine.preprocess(package, inputs)
    except PackageBroken as error:
        log.error("preprocessing_not_loaded", model=package.name, version=package.version, reason=error.message)
        return error.message
    return ""

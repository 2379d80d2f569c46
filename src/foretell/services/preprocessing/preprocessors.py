"""The preprocessing of every installed model. The models themselves are not loaded."""

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
    """The preprocessing of one package. `reason` says why it can't be used, if it can't."""

    package: ModelPackage
    engine: Engine
    offloading: Offloading
    reason: str = ""

    async def run(self, rows: list[Any]) -> list[Row | Failure]:
        """Features for each row, or why there are none. Raises `PreprocessingUnavailable`, `PreprocessingTimeout`."""
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
    """One `Preprocessor` for each package of `registry`, made at once: that runs the packages' code."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._engine = Engine(registry)
        self._made: dict[int, Preprocessor] = {}
        self.refresh()

    def refresh(self) -> None:
        """Follow the registry: packages that are new or changed are tried, those that went are let go. Blocks."""
        # By identity: a package whose files changed is another one.
        self._made = {
            id(package): self._made.get(id(package))
            or Preprocessor(package, self._engine, Offloading(timeout_s=package.timeout_s), _try(self._engine, package))
            for package in self.registry
        }
        self._engine.keep_only(made.package for made in self._made.values())

    def get(self, name: str, version: str | None = None) -> Preprocessor:
        """The preprocessing of a model; without `version` of the default one.

        Raises `ModelNotFound`, and `PreprocessingUnavailable` for a package that came a moment ago.
        """
        package = self.registry.get(name, version)
        made = self._made.get(id(package))
        if made is None:
            raise PreprocessingUnavailable(model=name, version=package.version, reason="It came a moment ago.")
        return made

    @property
    def unavailable(self) -> dict[str, str]:
        """Why versions, or packages that can't be read, can't be used."""
        return {package.name: package.reason for package in self.registry.unavailable} | {
            f"{made.package.name} {made.package.version}": made.reason for made in self._made.values() if made.reason
        }

    @property
    def hanging(self) -> list[str]:
        """The models whose preprocessing is over its time and has not returned."""
        return sorted({made.package.name for made in self._made.values() if made.offloading.overdue})


def _try(engine: Engine, package: ModelPackage) -> str:
    """Preprocess the first example, so that nobody waits for it; why that does not work, if it does not."""
    inputs = [example.input for example in package.examples if example.input is not None][:1]
    try:
        engine.preprocess(package, inputs)
    except PackageBroken as error:
        log.error("preprocessing_not_loaded", model=package.name, version=package.version, reason=error.message)
        return error.message
    return ""

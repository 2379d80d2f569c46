"""Runtimes for trained models: one small interface, one file for each runtime, imported only if a package needs it.

To add a runtime, write `runtimes/NAME.py` with `load(package, permissions) -> Runtime`, add it to `LOADERS` here and to
`RuntimeName` in `package.py`. With `guess(file, permissions) -> Guess` (see guessing.py) `foretell models new` can make
packages for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken, RuntimeName


class Runtime(Protocol):
    """A loaded model."""

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One output for each row of features, in order; 1 to `max_batch` rows that fit the features' schema.

        Outputs have only JSON types: dict, list, str, int, float, bool, None. Any exception is a model error, except
        `InvalidField`, for a value that the model can't use although the schema allows it, and `ModelAway`, which
        means that no row is the cause, so that the rows are not tried one by one.
        Must be thread-safe.
        """


class ModelAway(Exception):
    """The model is unavailable (its server is down, for example), for every row."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the operator allows packages to load."""

    #: sha256 of the pickles that may be loaded. Loading a pickle can run any code that is in it.
    allowed_pickles: frozenset[str] = frozenset()
    #: Additional types that a skops file may contain while a package is made for it.
    trusted_types: frozenset[str] = frozenset()


NOTHING_MORE = Permissions()

#: The module with the loader of each runtime. A loader checks the artifact's hash (`read_artifact`) before it loads it,
#: and raises `PackageBroken`.
LOADERS: dict[RuntimeName, str] = {
    "onnx": "foretell.inference.runtimes.onnx:load",
    "skops": "foretell.inference.runtimes.skops:load",
    "joblib": "foretell.inference.runtimes.joblib:load",
    "mlflow": "foretell.inference.runtimes.mlflow:load",
    "python": "foretell.inference.runtimes.python:load",
    "remote": "foretell.inference.runtimes.remote:load",
}

#: The extra of Foretell that installs the imports of a runtime.
EXTRAS: dict[RuntimeName, str] = {"skops": "sklearn", "joblib": "sklearn", "mlflow": "mlflow"}


#: The imports of each runtime.
_IMPORTS: dict[RuntimeName, tuple[str, ...]] = {
    "onnx": ("numpy", "onnxruntime"),
    "skops": ("sklearn", "skops"),
    "joblib": ("sklearn", "joblib"),
    "mlflow": ("yaml",),
}


def obstacle(package: ModelPackage, permissions: Permissions = NOTHING_MORE) -> str | None:
    """Why the model of `package` certainly can't be loaded here, checked without loading it; None if it may work."""
    runtime = package.manifest.runtime
    missing = [name for name in _IMPORTS.get(runtime, ()) if find_spec(name) is None]
    if missing:
        return f"The runtime {runtime} lacks {' and '.join(missing)} here. {_install_extra(runtime)}"
    if runtime == "joblib" and package.manifest.sha256 not in permissions.allowed_pickles:
        return "It is a pickle that the operator has not allowed (FORETELL_ALLOWED_PICKLES)."
    return None


def remedy_for_missing(runtime: RuntimeName, error: ImportError) -> str:
    """What to install: the extra of the runtime, or the package that the model itself needs."""
    name = (error.name or "").partition(".")[0]
    if not name or name in _IMPORTS.get(runtime, ()):
        return _install_extra(runtime)
    if find_spec(name) is not None:
        return f"The {name} that is installed here is another version than the model needs."
    return f"The model needs {name}: install that package, in the version with which the model was trained."


def _install_extra(runtime: RuntimeName) -> str:
    return f"Install foretell[{EXTRAS[runtime]}]." if runtime in EXTRAS else "Install Foretell anew, with all it needs."


def load_runtime(package: ModelPackage, permissions: Permissions = NOTHING_MORE) -> Runtime:
    """Load the model of `package`. Raises `PackageBroken`."""
    runtime = package.manifest.runtime
    module, _, function = LOADERS[runtime].partition(":")
    try:
        load: Callable[[ModelPackage, Permissions], Runtime] = getattr(import_module(module), function)
        return load(package, permissions)
    except ImportError as error:
        raise PackageBroken(
            f"The runtime {runtime} lacks a package here: {error}",
            package.path / MANIFEST,
            remedy_for_missing(runtime, error),
        ) from error
    except PackageBroken:
        raise
    except Exception as error:
        # Libraries may raise anything for a broken file, and one bad package must not end a service.
        raise PackageBroken(
            f"The runtime {runtime} cannot load it: {type(error).__name__}: {error}",
            package.path / MANIFEST,
            "Make the package anew: foretell models new",
        ) from error

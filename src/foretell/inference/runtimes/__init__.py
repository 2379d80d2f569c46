"""What runs a trained model: one small port, one file for each runtime, imported only when a package asks for it.

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

        Outputs hold what JSON has: dict, list, str, int, float, bool, None. Whatever is raised is the model's fault,
        but `InvalidField`, for a value that the model cannot take although the schema allows it; `ModelAway` says that
        no row is to blame, so that the rows are not tried one by one.
        Must allow several threads at once.
        """


class ModelAway(Exception):
    """The model cannot be asked at all just now (its server is down, say); the same holds for every row."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the operator of this installation allows to packages."""

    #: sha256 of the pickles that may be loaded. Loading a pickle runs whatever code its maker put there.
    allowed_pickles: frozenset[str] = frozenset()
    #: Types beyond the harmless ones that a skops file may contain while a package is made for it.
    trusted_types: frozenset[str] = frozenset()


NOTHING_MORE = Permissions()

#: Where the loader of each runtime is. A loader checks the artifact's hash (`read_artifact`) before it loads it, and
#: raises `PackageBroken`.
LOADERS: dict[RuntimeName, str] = {
    "onnx": "foretell.inference.runtimes.onnx:load",
    "skops": "foretell.inference.runtimes.skops:load",
    "joblib": "foretell.inference.runtimes.joblib:load",
    "mlflow": "foretell.inference.runtimes.mlflow:load",
    "python": "foretell.inference.runtimes.python:load",
    "remote": "foretell.inference.runtimes.remote:load",
}

#: The extra of Foretell that brings what a runtime imports.
EXTRAS: dict[RuntimeName, str] = {"skops": "sklearn", "joblib": "sklearn", "mlflow": "mlflow"}


#: What each runtime imports.
_IMPORTS: dict[RuntimeName, tuple[str, ...]] = {
    "onnx": ("numpy", "onnxruntime"),
    "skops": ("sklearn", "skops"),
    "joblib": ("sklearn", "joblib"),
    "mlflow": ("yaml",),
}


def obstacle(package: ModelPackage, permissions: Permissions = NOTHING_MORE) -> str | None:
    """Why the model of `package` certainly cannot be loaded here, found out without loading it; None when it may."""
    runtime = package.manifest.runtime
    missing = [name for name in _IMPORTS.get(runtime, ()) if find_spec(name) is None]
    if missing:
        return f"The runtime {runtime} lacks {' and '.join(missing)} here. {_install_extra(runtime)}"
    if runtime == "joblib" and package.manifest.sha256 not in permissions.allowed_pickles:
        return "It is a pickle that the operator has not allowed (FORETELL_ALLOWED_PICKLES)."
    return None


def remedy_for_missing(runtime: RuntimeName, error: ImportError) -> str:
    """What to install: the extra that brings what the runtime needs, or what the model itself needs beside it."""
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
        # What libraries do with a broken file knows no bounds, and one bad package must not take a service down.
        raise PackageBroken(
            f"The runtime {runtime} cannot load it: {type(error).__name__}: {error}",
            package.path / MANIFEST,
            "Make the package anew: foretell models new",
        ) from error

"""Models of scikit-learn in a pickle, as `joblib.dump` writes them.

Loading a pickle can run any code that is in it, so it is loaded only if the operator has allowed exactly this file:
its sha256 must be in FORETELL_ALLOWED_PICKLES. See sklearn.py for the options. Prefer skops.
"""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import joblib

from foretell.inference.guessing import CannotGuess, Guess
from foretell.inference.package import ModelPackage, PackageBroken, read_artifact, read_options
from foretell.inference.runtimes import NOTHING_MORE, Permissions
from foretell.inference.runtimes.sklearn import Options, SklearnModel, model


def load(package: ModelPackage, permissions: Permissions = NOTHING_MORE) -> SklearnModel:
    """Check the artifact's hash and that the operator allows it, and load it. Raises `PackageBroken`."""
    options = read_options(package, Options)
    content = read_artifact(package)
    return model(package, unpickle(package, content, permissions, joblib.load), options)


def unpickle(package: ModelPackage, content: bytes, permissions: Permissions, read: Any = pickle.load) -> Any:
    """The object in a pickle, if the operator allows exactly these bytes. Raises `PackageBroken`."""
    found = hashlib.sha256(content).hexdigest()
    if found not in permissions.allowed_pickles:
        raise PackageBroken(
            "The artifact is a pickle: loading it could run any code, and the operator has not allowed it",
            package.artifact_path,
            "Store the model with skops or as ONNX; or, if you trust who made it, set "
            f"FORETELL_ALLOWED_PICKLES={found}",
        )
    try:
        return read(io.BytesIO(content))
    except ImportError:
        raise
    except Exception as error:  # whatever the pickle does
        raise PackageBroken(
            f"The pickle cannot be loaded: {type(error).__name__}: {error}",
            package.artifact_path,
            "Store the model again, with the versions of the libraries that are installed here.",
        ) from error


def guess(file: Path, permissions: Permissions = NOTHING_MORE) -> Guess:
    """The guess for a package of this model. Raises `CannotGuess`."""
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found not in permissions.allowed_pickles:
        raise CannotGuess(
            f"{file} is a pickle: loading it could run any code. Store the model with skops "
            f"(skops.io.dump(model, 'model.skops')) or as ONNX; or, if you trust who made it, set "
            f"FORETELL_ALLOWED_PICKLES={found}"
        )
    try:
        estimator = joblib.load(io.BytesIO(content))
    except ImportError:
        raise
    except Exception as error:
        raise CannotGuess(f"{file} cannot be loaded: {type(error).__name__}: {error}.") from error
    from foretell.inference.runtimes.sklearn_guess import guess_estimator

    return guess_estimator(estimator, {"model.joblib": file})

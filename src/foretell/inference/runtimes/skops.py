"""Models of scikit-learn stored by skops, as data without code.

The file may contain the types of scikit-learn and NumPy that skops considers harmless. Every other type must be in
`trusted` under [options], with the hash of the file: add a type only if you trust the author of the file. Decision
trees must be trusted, too, since a manipulated tree can read other memory. See sklearn.py for other options.
"""

import io
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import skops.io

from foretell.inference.guessing import CannotGuess, Guess
from foretell.inference.package import ModelPackage, PackageBroken, read_artifact, read_options
from foretell.inference.runtimes import NOTHING_MORE, Permissions
from foretell.inference.runtimes.sklearn import Options, SklearnModel, model

#: A skops file is a ZIP archive. Limits of its unpacked size: in bytes, and for larger files as a multiple of their
#: size. Numbers compress a few times; a ZIP bomb a thousand times.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_TIMES = 20
#: The entry with the structure of the model: JSON, which needs many times its size in memory.
_SCHEMA, _MOST_SCHEMA_BYTES = "schema.json", 32 * 1024 * 1024


class _Untrusted(Exception):
    """The file contains types that are not trusted."""


def load(package: ModelPackage, _: Permissions = NOTHING_MORE) -> SklearnModel:
    """Check the artifact's hash and types, and load it. Raises `PackageBroken`."""
    options = read_options(package, Options)
    content = read_artifact(package)
    return model(package, put_together(package, content, options.trusted), options)


def put_together(package: ModelPackage, content: bytes, trusted: Iterable[str]) -> Any:
    """The estimator of a skops file, if every type in it is trusted. Raises `PackageBroken`."""
    try:
        return _estimator(content, trusted)
    except _Untrusted as error:
        raise PackageBroken(
            f"The artifact contains types that are not trusted: {error}",
            package.artifact_path,
            "If you know what they do, list them as `trusted` under [options] in model.toml.",
        ) from error
    except ImportError:
        raise
    except Exception as error:  # skops raises whatever the broken part of the file made it raise
        raise PackageBroken(
            f"skops cannot load the artifact: {type(error).__name__}: {error}",
            package.artifact_path,
            "Dump the model again, with the versions of scikit-learn and skops that are installed here.",
        ) from error


def guess(file: Path, permissions: Permissions = NOTHING_MORE) -> Guess:
    """The guess for a package of this model. Raises `CannotGuess`."""
    trusted = sorted(permissions.trusted_types)
    try:
        estimator = _estimator(file.read_bytes(), trusted)
    except _Untrusted as error:
        raise CannotGuess(
            f"{file} contains types that are not trusted: {error}. If you know who made this file, allow them: "
            f"{' '.join(f'--trust {name}' for name in str(error).split(', '))}"
        ) from error
    except ImportError:
        raise
    except Exception as error:
        raise CannotGuess(f"skops cannot load {file}: {type(error).__name__}: {error}.") from error
    from foretell.inference.runtimes.sklearn_guess import guess_estimator

    made = guess_estimator(estimator, {"model.skops": file})
    return replace(made, options={**made.options, "trusted": trusted}) if trusted else made


def _check_unpacked(content: bytes) -> None:
    """Refuse a ZIP bomb. Raises `ValueError`, `BadZipFile`."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # `zipfile` does not read beyond the declared size of an entry, so it can be trusted.
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    total, allowed = sum(sizes.values()), max(_MOST_BYTES, _MOST_TIMES * len(content))
    if total > allowed:
        raise ValueError(f"it unpacks to {total} bytes, and may to {allowed}")
    if sizes.get(_SCHEMA, 0) > _MOST_SCHEMA_BYTES:
        raise ValueError(f"its {_SCHEMA} has {sizes[_SCHEMA]} bytes, and may have {_MOST_SCHEMA_BYTES}")


def _estimator(content: bytes, trusted: Iterable[str]) -> Any:
    _check_unpacked(content)
    untrusted = sorted(set(skops.io.get_untrusted_types(data=content)).difference(trusted))
    if untrusted:
        raise _Untrusted(", ".join(untrusted))
    # skops checks the types again while it loads; only the trusted ones are allowed beyond its own.
    return skops.io.loads(content, trusted=list(trusted))

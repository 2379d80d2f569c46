"""Pickles: loaded only where the operator allows exactly these bytes. See tests/security/test_pickles.py, too."""

import hashlib
from pathlib import Path

import joblib
import pytest

from foretell.inference.package import PackageBroken
from foretell.inference.runtimes import Permissions, load_runtime
from foretell.inference.runtimes.joblib import load

from . import trained
from .conftest import Made


def test_an_allowed_pickle_is_a_model_like_any_other(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "flower.joblib"
    joblib.dump(trained.tree(), file)
    allowed = frozenset({hashlib.sha256(file.read_bytes()).hexdigest()})
    package = made(file, allowed_pickles=allowed)
    runtime = load(package, Permissions(allowed_pickles=allowed))
    assert runtime.predict([{"petal_length_cm": 6.0, "petal_width": 2.5}])[0]["prediction"] == "virginica"
    with pytest.raises(PackageBroken, match="FORETELL_ALLOWED_PICKLES") as refused:
        load_runtime(package)
    assert package.manifest.sha256 in refused.value.message


def test_an_allowed_file_that_is_no_pickle_is_broken(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "flower.joblib"
    joblib.dump(trained.tree(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    package = made(file, allowed_pickles=frozenset({digest}))
    package.artifact_path.write_bytes(b"no pickle")
    other = hashlib.sha256(b"no pickle").hexdigest()
    permissions = Permissions(allowed_pickles=frozenset({digest, other}))
    with pytest.raises(PackageBroken, match="not the one the manifest names"):
        load(package, permissions)
    manifest = package.path / "model.toml"
    manifest.write_text(manifest.read_text().replace(digest, other))
    from foretell.inference.package import load_package

    with pytest.raises(PackageBroken, match="cannot be loaded"):
        load(load_package(package.path), permissions)

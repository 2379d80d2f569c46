"""A malicious pickle is never loaded, whatever it is called and wherever it stands."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foretell.cli.main import app
from foretell.inference.engine import Engine
from foretell.inference.package import PackageBroken
from foretell.inference.registry import Registry
from foretell.inference.settings import InferenceSettings

MANIFEST = """
name = "trojan"
version = "1.0.0"
title = {{ en = "Trojan", ru = "Троян" }}
description = {{ en = "Looks harmless", ru = "Выглядит безобидно" }}
runtime = "{runtime}"
artifact = "{artifact}"
sha256 = "{sha256}"
price_credits = 1
timeout_s = 5
max_batch = 8
[options]
columns = [{{ feature = "x" }}]
outputs = [{outputs}]
"""
MLMODEL = """\
flavors:
  sklearn:
    pickled_model: model.pkl
    serialization_format: cloudpickle
"""
SCHEMA = {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}}


class _Trojan:
    """Unpickling it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The file that exists once the pickle was loaded."""
    return tmp_path / "loaded"


@pytest.fixture
def trojan(trace: Path) -> bytes:
    content = pickle.dumps(_Trojan(trace))
    pickle.loads(content)
    assert trace.exists(), "the pickle of this test would do no harm"
    trace.unlink()
    return content


@pytest.mark.parametrize(
    ("runtime", "artifact"),
    [
        ("joblib", "model.joblib"),
        ("skops", "model.skops"),
        ("onnx", "model.onnx"),
        ("mlflow", "mlflow/model.pkl"),
        ("python", "model.pkl"),
    ],
)
def test_no_runtime_loads_it(tmp_path: Path, trojan: bytes, trace: Path, runtime: str, artifact: str) -> None:
    package = tmp_path / "models" / "trojan"
    (package / artifact).parent.mkdir(parents=True)
    (package / artifact).write_bytes(trojan)
    (package / "mlflow").mkdir(exist_ok=True)
    (package / "mlflow" / "MLmodel").write_text(MLMODEL)
    for name in ("features", "output"):
        (package / f"{name}.schema.json").write_text(json.dumps(SCHEMA))
    tensor = ', tensor = "y"' if runtime == "onnx" else ""
    digest = hashlib.sha256(trojan).hexdigest()
    (package / "model.toml").write_text(
        MANIFEST.format(runtime=runtime, artifact=artifact, sha256=digest, outputs=f'{{ field = "y"{tensor} }}')
    )
    registry = Registry.discover(package.parent)
    assert registry.names == ["trojan"], registry.unavailable
    engine = Engine(registry)
    with pytest.raises(PackageBroken):
        engine.warm("trojan")
    (answer,) = engine.predict(registry.get("trojan"), [{"x": 1}], "features")
    assert answer.code == "model_error"  # type: ignore[union-attr]  # not an output
    assert not trace.exists()


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.skops", "model.onnx", "mlflow"])
def test_no_package_is_made_of_it(
    tmp_path: Path, trojan: bytes, trace: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORETELL_DATA_DIR", str(tmp_path / "data"))
    source = tmp_path / name
    if name == "mlflow":
        source.mkdir()
        (source / "MLmodel").write_text(MLMODEL)
        (source / "model.pkl").write_bytes(trojan)
    else:
        source.write_bytes(trojan)
    result = CliRunner().invoke(app, ["models", "new", str(source), "--output", str(tmp_path / "package")])
    assert result.exception is not None
    assert not trace.exists()
    assert not (tmp_path / "package").exists()


def test_what_the_operator_allows_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = "a" * 64, "b" * 64
    monkeypatch.setenv("FORETELL_ALLOWED_PICKLES", f"{first}, {second.upper()}")
    assert InferenceSettings().permissions.allowed_pickles == {first, second}
    monkeypatch.setenv("FORETELL_ALLOWED_PICKLES", "")
    assert InferenceSettings().permissions.allowed_pickles == frozenset()
    monkeypatch.setenv("FORETELL_ALLOWED_PICKLES", "*")
    with pytest.raises(ValueError, match="allowed_pickles"):
        InferenceSettings()

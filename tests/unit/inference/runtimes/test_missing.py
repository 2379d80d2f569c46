"""A library that is not here makes its packages unavailable, and nothing else."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from foretell.inference.engine import Engine
from foretell.inference.package import PackageBroken, RuntimeName, load_package
from foretell.inference.registry import Registry, shipped_folder
from foretell.inference.runtimes import load_runtime, obstacle

MANIFEST = """
name = "lonely"
version = "1.0.0"
title = {{ en = "Lonely", ru = "Одинокая" }}
description = {{ en = "Lacks something", ru = "Чего-то не хватает" }}
runtime = "{runtime}"
artifact = "model.bin"
sha256 = "{sha256}"
price_credits = 1
timeout_s = 5
max_batch = 8
[options]
columns = [{{ feature = "x" }}]
"""
SCHEMA = {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}}


@pytest.mark.parametrize(
    ("runtime", "library", "extra"),
    [("skops", "skops", "sklearn"), ("joblib", "joblib", "sklearn"), ("mlflow", "yaml", "mlflow")],
)
def test_the_reason_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: RuntimeName, library: str, extra: str
) -> None:
    package = tmp_path / "models" / "lonely"
    package.mkdir(parents=True)
    (package / "model.bin").write_bytes(b"whatever")
    digest = hashlib.sha256(b"whatever").hexdigest()
    (package / "model.toml").write_text(MANIFEST.format(runtime=runtime, sha256=digest))
    for name in ("features", "output"):
        (package / f"{name}.schema.json").write_text(json.dumps(SCHEMA))
    # As on a machine without it: whoever imports it gets an ImportError.
    for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"foretell.inference.runtimes.{runtime}", raising=False)
    with pytest.raises(PackageBroken, match=rf"Install foretell\[{extra}\]"):
        load_runtime(load_package(package))
    said = obstacle(load_package(package))
    assert said is not None
    assert f"foretell[{extra}]" in said
    engine = Engine(Registry.discover(shipped_folder(), package.parent))
    with pytest.raises(PackageBroken):
        engine.warm("lonely")
    engine.warm("flight-delay")
    assert engine.is_loaded("flight-delay", "1.0.0")

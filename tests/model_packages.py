"""Packages for tests of the services: a doubler, with a runtime that does what the test says."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foretell.inference.live import LiveRegistry
from foretell.inference.loading import State
from foretell.inference.package import ModelPackage, load_package

_MANIFEST = """
name = "{name}"
version = "{version}"
title = {{ en = "Doubler", ru = "Удвоитель" }}
description = {{ en = "Doubles a number", ru = "Удваивает число" }}
runtime = "onnx"
artifact = "model.onnx"
sha256 = "{sha256}"
price_credits = 1
timeout_s = {timeout_s}
max_batch = {max_batch}
{more}
options.outputs = [{{ field = "y", tensor = "y" }}]

[[examples]]
features = {{ x = 1 }}
output = {{ y = 2 }}
"""
_NUMBER = {"type": "number", "minimum": -1000}
FEATURES = {"type": "object", "additionalProperties": False, "required": ["x"], "properties": {"x": _NUMBER}}
OUTPUT = {"type": "object", "required": ["y"], "properties": {"y": {"type": "number"}}}


def write_package(
    folder: Path,
    *,
    name: str = "doubler",
    version: str = "1.0.0",
    max_batch: int = 8,
    timeout_s: float = 30,
    preprocessing: str | None = None,
    input_schema: dict[str, Any] | None = None,
    sha256: str | None = None,
) -> Path:
    """Write a package and return its folder."""
    place = folder / f"{name}-{version}"
    place.mkdir(parents=True, exist_ok=True)
    artifact = b"not really a model"
    more = 'preprocessing = "preprocessing:preprocess"\n' if preprocessing else ""
    if preprocessing:
        (place / "preprocessing.py").write_text(preprocessing, encoding="utf-8")
        (place / "input.schema.json").write_text(json.dumps(input_schema or {"type": "object"}))
    manifest = _MANIFEST.format(
        name=name,
        version=version,
        max_batch=max_batch,
        timeout_s=timeout_s,
        sha256=sha256 or hashlib.sha256(artifact).hexdigest(),
        more=more,
    )
    (place / "model.toml").write_text(manifest, encoding="utf-8")
    (place / "model.onnx").write_bytes(artifact)
    (place / "features.schema.json").write_text(json.dumps(FEATURES))
    (place / "output.schema.json").write_text(json.dumps(OUTPUT))
    return place


def live_registry(folder: Path) -> LiveRegistry:
    """The packages in `folder/models`, without those that ship."""
    nothing = folder / "nothing"
    nothing.mkdir(exist_ok=True)
    return LiveRegistry(folder / "models", shipped=nothing)


def package(folder: Path, **options: Any) -> ModelPackage:
    """The same, read."""
    return load_package(write_package(folder, **options))


class Doubler:
    """A runtime that remembers its batches. `answer` may raise; while `gate` is not set, calls hang."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: {"y": row["x"] * 2}) -> None:
        self.answer = answer
        self.batches: list[list[dict[str, Any]]] = []
        self.threads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.gate.wait()
        self.batches.append(rows)
        self.threads.append(threading.current_thread().name)
        return [self.answer(row) for row in rows]


class ModelsThatAre:
    """To a worker, every model is as the test says."""

    def __init__(self, now: State = State.READY) -> None:
        self.now = now
        self.under_way = False

    def state(self, model: str, version: str) -> State:
        return self.now

    def reason(self, model: str, version: str) -> str:
        return "It is bent."

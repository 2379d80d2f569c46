"""A package to change at will, and a model that does what a test tells it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretell.inference.engine import Engine
from foretell.inference.package import ModelPackage, load_package
from foretell.inference.registry import Registry

MANIFEST = """
name = "{name}"
version = "{version}"
title = {{ en = "Doubler", ru = "Удвоитель" }}
description = {{ en = "Doubles a number", ru = "Удваивает число" }}
runtime = "onnx"
artifact = "model.onnx"
sha256 = "{sha256}"
price_credits = 1
timeout_s = 5
max_batch = {max_batch}
{more}
"""

FEATURES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["x"],
    "properties": {"x": {"type": "number", "minimum": -1000}},
}
OUTPUT = {"type": "object", "required": ["y"], "properties": {"y": {"type": "number"}}}

MakePackage = Callable[..., Path]


@pytest.fixture
def make_package(tmp_path: Path) -> MakePackage:
    """Writes a package and returns its folder; keywords change it."""

    def make(
        folder: str = "doubler",
        *,
        name: str = "doubler",
        version: str = "1.0.0",
        max_batch: int = 8,
        more: str = "",
        artifact: bytes = b"not really a model",
        preprocessing: str | None = None,
        input_schema: dict[str, Any] | None = None,
        features_schema: dict[str, Any] | None = None,
    ) -> Path:
        place = tmp_path / "models" / folder
        place.mkdir(parents=True)
        sha256 = hashlib.sha256(artifact).hexdigest()
        if preprocessing is not None:
            more = 'preprocessing = "preprocessing:preprocess"\n' + more
            (place / "preprocessing.py").write_text(preprocessing, encoding="utf-8")
            input_schema = input_schema or {"type": "object"}
        text = MANIFEST.format(name=name, version=version, max_batch=max_batch, more=more, sha256=sha256)
        (place / "model.toml").write_text(text, encoding="utf-8")
        (place / "model.onnx").write_bytes(artifact)
        (place / "features.schema.json").write_text(json.dumps(features_schema or FEATURES))
        (place / "output.schema.json").write_text(json.dumps(OUTPUT))
        if input_schema is not None:
            (place / "input.schema.json").write_text(json.dumps(input_schema))
        return place

    return make


class Model:
    """A runtime: `answer` makes the output of one row; `batches` remembers what it was called with."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.answer = answer
        self.batches: list[list[dict[str, Any]]] = []

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.batches.append(rows)
        return [self.answer(row) for row in rows]


class Bench:
    """An engine with one package and a model that is ours."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.package: ModelPackage = load_package(folder)
        self.model = model
        self.engine = Engine(Registry([self.package]), load=lambda package: model)


@pytest.fixture
def make_bench(make_package: MakePackage) -> Callable[..., Bench]:
    """An engine around `answer` and a package made with the other keywords."""

    def make(answer: Callable[[dict[str, Any]], dict[str, Any]] | None = None, **package: Any) -> Bench:
        return Bench(make_package(**package), Model(answer or (lambda row: {"y": row["x"] * 2})))

    return make

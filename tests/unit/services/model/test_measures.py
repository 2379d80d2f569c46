"""Which models are loaded and how long their calls take, as Prometheus sees it."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from tests.model_packages import Doubler, live_registry, package, write_package

from foretell.services.model.calls import ModelCalls, ModelHangs, ModelTimeout
from foretell.services.model.models import Models


def _loaded() -> set[str]:
    (metric,) = [metric for metric in REGISTRY.collect() if metric.name == "foretell_model_info"]
    return {sample.labels["version"] for sample in metric.samples if sample.labels["model"] == "doubler"}


def _calls(part: str, version: str) -> float:
    labels = {"model": "doubler", "version": version}
    return REGISTRY.get_sample_value(f"foretell_model_run_duration_seconds_{part}", labels) or 0.0


async def test_models_that_are_loaded_are_shown_and_those_that_went_are_not(tmp_path: Path) -> None:
    write_package(tmp_path / "models")
    models = Models(live_registry(tmp_path), load=lambda _: Doubler())
    await models.follow()
    assert _loaded() == {"1.0.0"}
    write_package(tmp_path / "models", version="1.1.0")
    await models.load("doubler")
    assert _loaded() == {"1.0.0", "1.1.0"}
    await models.unload("doubler")
    assert _loaded() == set()


async def test_each_call_is_timed_once_however_many_rows_it_has(tmp_path: Path) -> None:
    calls = ModelCalls(package(tmp_path, version="3.0.0"), load=lambda _: Doubler())
    calls.warm()
    # What nobody asked for is not counted.
    assert _calls("count", "3.0.0") == 0
    await asyncio.gather(*(calls.predict_one({"x": x}, "features") for x in range(10)))
    assert _calls("count", "3.0.0") == 2
    await calls.predict_many([{"x": x} for x in range(20)], "features")
    assert _calls("count", "3.0.0") == 5


async def test_a_call_that_is_given_up_took_all_its_time(tmp_path: Path) -> None:
    model = Doubler()
    calls = ModelCalls(package(tmp_path, version="3.1.0", timeout_s=0.2), load=lambda _: model)
    model.gate.clear()
    with pytest.raises(ModelTimeout):
        await calls.predict_one({"x": 1}, "features")
    assert _calls("count", "3.1.0") == 1
    assert _calls("sum", "3.1.0") >= 0.2
    # What is not called at all takes no time.
    with pytest.raises(ModelHangs):
        await calls.predict_one({"x": 1}, "features")
    assert _calls("count", "3.1.0") == 1
    model.gate.set()

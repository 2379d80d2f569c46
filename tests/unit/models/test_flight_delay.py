"""The flight delay model as users meet it: the shipped package, through the engine."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from foretell.contracts.messages import Failure
from foretell.inference.engine import Engine
from foretell.inference.package import ModelPackage, PackageBroken, load_package
from foretell.inference.registry import Registry, shipped_folder

FLIGHT = {"carrier": "AA", "departure_time": "08:45", "distance_miles": 550.0, "weather_code": 1}
FEATURES = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
FOLDER = shipped_folder() / "flight_delay"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(Registry.discover(shipped_folder()))


@pytest.fixture(scope="module")
def package(engine: Engine) -> ModelPackage:
    return engine.registry.get("flight-delay")


def predict_one(engine: Engine, package: ModelPackage, **change: Any) -> Any:
    (outcome,) = engine.predict(package, [{**FEATURES, **change}], "features")
    return outcome


def test_it_ships(package: ModelPackage) -> None:
    assert (package.name, package.version, package.price_credits) == ("flight-delay", "1.0.0", 1)
    assert hashlib.sha256(package.artifact_path.read_bytes()).hexdigest() == package.manifest.sha256


def test_the_examples_give_the_outputs_they_say(engine: Engine, package: ModelPackage) -> None:
    assert len(package.examples) >= 3
    for example in package.examples:
        (outcome,) = (
            engine.predict(package, [example.features], "features")
            if example.input is None
            else engine.predict(package, [example.input], "input")
        )
        assert outcome == example.output


@pytest.mark.parametrize(("code", "minutes"), [(1, 0), (2, 5), (3, 15), (4, 30)])
def test_preprocessing_makes_features(engine: Engine, package: ModelPackage, code: int, minutes: int) -> None:
    (features,) = engine.preprocess(package, [{**FLIGHT, "weather_code": code}])
    assert features == {"carrier": "AA", "dep_hour": 8, "distance": 550.0, "weather_delay": minutes}


@pytest.mark.parametrize("code", [0, 5, -1, 10**30])
def test_an_unknown_weather_code_is_clear_with_a_warning(engine: Engine, package: ModelPackage, code: int) -> None:
    with capture_logs() as logs:
        (features,) = engine.preprocess(package, [{**FLIGHT, "weather_code": code}])
    assert isinstance(features, dict)
    assert features["weather_delay"] == 0
    assert [entry["log_level"] for entry in logs if entry["event"] == "weather_code_replaced"] == ["warning"]


@pytest.mark.parametrize("time", ["24:00", "8:45", "08:60", "0845", "", "08:45 ", "08:45\n", "٠٨:٤٥", 845, None])
def test_a_time_that_is_none_is_named(engine: Engine, package: ModelPackage, time: Any) -> None:
    (outcome,) = engine.preprocess(package, [{**FLIGHT, "departure_time": time}])
    assert isinstance(outcome, Failure)
    assert outcome.code == "invalid_input"
    assert "departure_time" in outcome.message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"carrier": "ZZ"}, "carrier"),
        ({"carrier": "A"}, "carrier"),
        ({"carrier": "aa"}, "carrier"),
        ({"dep_hour": 24}, "dep_hour"),
        ({"dep_hour": -1}, "dep_hour"),
        ({"dep_hour": 9.5}, "dep_hour"),
        ({"distance": 0}, "distance"),
        ({"distance": 5000.1}, "distance"),
        ({"distance": float("nan")}, "distance"),
        ({"weather_delay": -0.1}, "weather_delay"),
        ({"weather_delay": float("inf")}, "weather_delay"),
        ({"price": 0}, "price"),
    ],
)
def test_what_is_outside_is_refused(engine: Engine, package: ModelPackage, change: dict[str, Any], field: str) -> None:
    outcome = predict_one(engine, package, **change)
    assert isinstance(outcome, Failure)
    assert outcome.code == "invalid_input"
    assert field in outcome.message


def test_an_unknown_carrier_is_refused_as_input_too(engine: Engine, package: ModelPackage) -> None:
    (outcome,) = engine.predict(package, [{**FLIGHT, "carrier": "ZZ"}], "input")
    assert isinstance(outcome, Failure)
    assert "carrier" in outcome.message


@pytest.mark.parametrize("change", [{"dep_hour": 0}, {"dep_hour": 23}, {"distance": 5000}, {"weather_delay": 10**300}])
def test_the_edges_are_answered(engine: Engine, package: ModelPackage, change: dict[str, Any]) -> None:
    outcome = predict_one(engine, package, **change)
    assert 0 <= outcome["probability"] <= 1
    assert round(outcome["probability"], 4) == outcome["probability"]
    assert outcome["prediction"] == int(outcome["probability"] >= 0.5)
    assert package.output_validator.is_valid(outcome)


def test_worse_weather_never_makes_a_delay_less_likely(engine: Engine, package: ModelPackage) -> None:
    for carrier in package.features_schema["properties"]["carrier"]["enum"]:
        chances = [
            predict_one(engine, package, carrier=carrier, dep_hour=18, weather_delay=minutes)["probability"]
            for minutes in (0, 5, 15, 30, 1000)
        ]
        assert chances == sorted(chances)
        assert chances[0] < chances[-1]


def test_a_batch_equals_its_rows_and_a_bad_row_harms_no_other(engine: Engine, package: ModelPackage) -> None:
    carriers = package.features_schema["properties"]["carrier"]["enum"]
    rows: list[dict[str, Any]] = [
        {"carrier": carriers[number % 16], "dep_hour": number % 24, "distance": 1 + 16 * number, "weather_delay": delay}
        for number, delay in zip(range(300), [0, 5, 15, 30, 7.5] * 60, strict=True)
    ]
    rows[7] = {**rows[7], "carrier": "ZZ"}
    rows[200] = {}
    batch = engine.predict(package, rows, "features")
    assert batch == [engine.predict(package, [row], "features")[0] for row in rows]
    assert [place for place, outcome in enumerate(batch) if isinstance(outcome, Failure)] == [7, 200]


def test_a_tampered_artifact_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "flight_delay"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    package = load_package(folder)
    engine = Engine(Registry([package]))
    with pytest.raises(PackageBroken, match="sha256"):
        engine.warm("flight-delay")
    (outcome,) = engine.predict(package, [FEATURES], "features")
    assert isinstance(outcome, Failure)
    assert outcome.code == "model_error"


@pytest.mark.parametrize("stage", ["input", "features", "output"])
def test_every_field_speaks_both_languages(stage: str) -> None:
    schema = json.loads((FOLDER / f"{stage}.schema.json").read_text(encoding="utf-8"))
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(schema["properties"])
    for field in schema["properties"].values():
        for keyword in ("title", "description", "x-title-ru", "x-description-ru"):
            assert field[keyword]
    if stage != "output":
        carrier = schema["properties"]["carrier"]
        assert list(carrier["x-enum-labels"]) == carrier["enum"]
        assert all(field["examples"] for field in schema["properties"].values())

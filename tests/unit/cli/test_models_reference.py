"""`foretell models reference`: from the data that a model was trained on to what drift is measured against."""

import json
import shutil
from pathlib import Path

import pytest

from foretell.inference.reference import Categories, Numbers, read_reference
from foretell.inference.registry import shipped_folder

from .test_models import Models, folder, models

__all__ = ["folder", "models"]


@pytest.fixture
def package(folder: Path) -> Path:
    """The flight-delay model, without a reference."""
    made = folder / "flights"
    shutil.copytree(shipped_folder() / "flight_delay", made, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    for name in ("preprocessing.py", "__init__.py"):
        shutil.copy(shipped_folder() / "flight_delay" / name, made)
    (made / "reference.json").unlink()
    return made


@pytest.fixture
def flights(folder: Path) -> Path:
    """A table of a thousand flights; one carrier is unknown to the model."""
    file = folder / "flights.csv"
    lines = [f"{'AA' if number % 4 else 'UA'},{5 + number % 19},{100 + number},0,{number}" for number in range(1000)]
    file.write_text("\n".join(["carrier,dep_hour,distance,weather_delay,late", *lines, "??,5,100,0,1"]))
    return file


def test_a_reference_is_made_of_a_table(models: Models, package: Path, flights: Path) -> None:
    answer = models("reference", str(package), str(flights))
    assert answer.code == 0, answer.error
    assert "reference.json is made of 1000 rows." in answer.out
    assert "1 rows can't be used; the first: carrier must be one of" in answer.out
    assert "feature dep_hour: numbers from 5 to 23 in 19 bins" in answer.out
    assert "feature weather_delay: numbers, all 0\n" in answer.out
    reference = read_reference(package)
    assert reference is not None
    carriers = reference.features["carrier"]
    assert carriers == Categories({"AA": 750, "UA": 250})
    probability = reference.outputs["probability"]
    assert isinstance(probability, Numbers)
    assert sum(probability.counts) == 1000
    assert 0 <= probability.edges[0] < probability.edges[-1] <= 1
    checked = models("check", str(package))
    assert "ok       reference 4 features of 1000 rows" in checked.out


def test_raw_input_is_preprocessed_first(models: Models, package: Path, folder: Path) -> None:
    file = folder / "flights.jsonl"
    row = {"carrier": "AA", "departure_time": "09:30", "distance_miles": 550, "weather_code": 3}
    file.write_text("\n".join(json.dumps({**row, "distance_miles": 500 + number}) for number in range(50)))
    answer = models("reference", str(package), str(file), "--input")
    assert answer.code == 0, answer.error
    assert "That is few" in answer.out
    reference = read_reference(package)
    assert reference is not None
    weather = reference.features["weather_delay"]
    assert isinstance(weather, Numbers)
    assert (weather.mean, weather.counts) == (15.0, [50])


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_with_days_it_says_how_far_they_usually_are_apart(
    models: Models, package: Path, folder: Path, suffix: str
) -> None:
    """Twenty days, the weather of each of one kind, the distances of all alike."""
    file = folder / f"days.{suffix}"
    rows = [
        {
            "when": f"2024-05-{1 + number // 400:02}T{number % 24:02}:00:00Z",
            "carrier": "AA",
            "dep_hour": 5 + number % 19,
            "distance": 100 + number % 400,
            "weather_delay": [0, 5][number // 400 % 2],
        }
        for number in range(8000)
    ]
    if suffix == "csv":
        file.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
    else:
        file.write_text("\n".join(json.dumps(row) for row in rows))
    answer = models("reference", str(package), str(file), "--day", "when")
    assert answer.code == 0, answer.error
    assert "made of 8000 rows." in answer.out
    assert "feature weather_delay: numbers from 0 to 5 in 2 bins; PSI of single days usually up to 3" in answer.out
    reference = read_reference(package)
    assert reference is not None
    assert set(reference.features) == {"carrier", "dep_hour", "distance", "weather_delay"}
    assert reference.features["weather_delay"].usual_psi > 3
    assert reference.features["distance"].usual_psi < 0.01
    assert reference.outputs["probability"].usual_psi > 0.1
    assert models("reference", str(package), str(file), "--replace").code == (0 if suffix == "csv" else 1)


def test_too_few_days_and_days_that_are_none_are_told(models: Models, package: Path, flights: Path) -> None:
    lines = flights.read_text().splitlines()
    flights.write_text("\n".join([lines[0] + ",when", *(f"{line},2024-05-01" for line in lines[1:])]))
    answer = models("reference", str(package), str(flights), "--day", "when")
    assert answer.code == 0, answer.error
    assert "How far days usually are apart is not known: it takes 14 of 300 rows or more." in answer.out
    answer = models("reference", str(package), str(flights), "--day", "date", "--replace")
    assert (answer.code, "has date" in answer.error) == (1, True)
    answer = models("reference", str(package), str(flights), "--day", "carrier", "--replace")
    assert (answer.code, "is no date or moment" in answer.error) == (1, True)


def test_a_reference_that_is_there_is_kept_unless_told(models: Models, package: Path, flights: Path) -> None:
    assert models("reference", str(package), str(flights)).code == 0
    before = (package / "reference.json").read_bytes()
    refused = models("reference", str(package), str(flights))
    assert refused.code == 1
    assert "--replace" in refused.error
    flights.write_text("\n".join(flights.read_text().splitlines()[:500]))
    assert models("reference", str(package), str(flights), "--replace").code == 0
    assert (package / "reference.json").read_bytes() != before


def test_data_that_do_not_fit_make_no_reference(models: Models, package: Path, folder: Path) -> None:
    other = folder / "other.csv"
    other.write_text("sepal,petal\n1,2\n3,4\n")
    answer = models("reference", str(package), str(other))
    assert answer.code == 1
    assert "None of the 2 rows" in answer.error
    assert "carrier is missing" in answer.error
    assert not (package / "reference.json").exists()


def test_a_model_that_cannot_be_loaded_still_has_features(models: Models, package: Path, flights: Path) -> None:
    (package / "model.onnx").write_bytes(b"another file")
    answer = models("reference", str(package), str(flights))
    assert answer.code == 0, answer.error
    assert "Without the model's answers" in answer.out
    reference = read_reference(package)
    assert reference is not None
    assert len(reference.features) == 4
    assert reference.outputs == {}


def test_check_and_show_say_how_the_reference_is(models: Models, package: Path) -> None:
    answer = models("check", str(package))
    assert answer.code == 0
    assert "ok       reference none: drift can't be seen" in answer.out
    (package / "reference.json").write_text("{}")
    answer = models("check", str(package))
    assert answer.code == 0, "a broken reference is no broken model"
    assert "warning  reference The reference of this model can't be used" in answer.out
    shown = models("show", "flight-delay")
    assert "Reference for drift: 4 features and 2 outputs of 259918 rows" in shown.out

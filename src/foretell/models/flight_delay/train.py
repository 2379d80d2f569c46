"""Trains the model of this package from public data, in half a minute: `python -m foretell.models.flight_delay.train`.

Writes model.onnx, report.md, report.json and reference.json, and into model.toml what follows from them. Fails, and
writes nothing, when the exported model differs from the trained one. With `--check` it writes nothing either way and
fails when the committed model or reports are not what the training gives.
"""

import argparse
import hashlib
import itertools
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxmltools
from onnxmltools.convert.common.data_types import FloatTensorType

from foretell.contracts.messages import Failure
from foretell.inference.engine import Engine
from foretell.inference.package import MANIFEST, ModelPackage, load_package
from foretell.inference.registry import Registry
from foretell.inference.runtimes.onnx import open_session
from foretell.models.flight_delay import report as reports
from foretell.models.flight_delay.data import (
    FOLDS,
    SEED,
    Flights,
    as_matrix,
    order_carriers,
    read_flights,
    split_by_day,
    split_by_time,
)

FOLDER = Path(__file__).parent
FEATURES = ["carrier", "dep_hour", "distance", "weather_delay"]
TREES = 150
#: The exported model may differ from the trained one by this much, on any flight of the hold-out.
PARITY_LIMIT = 1e-5
#: The committed model may differ from a new training by this much.
REPRODUCTION_LIMIT = 1e-6


class GateFailed(Exception):
    """The model must not be used; the message says why."""


@dataclass(frozen=True)
class Trained:
    """What a training gives: the artifact, the order of the carriers, and the reports."""

    artifact: bytes
    carriers: list[str]
    report: dict[str, Any]
    reference: dict[str, Any]
    #: The matrix of the hold-out, float32 (rows, 4).
    hold_out: Any


def train() -> Trained:
    """Read the data, train, export, check and report. Raises `GateFailed`."""
    say("reading the flights and the weather ...")
    flights = read_flights()
    training, held_out = split_by_day(flights.table)
    carriers = order_carriers(training)
    say(f"training on {len(training):,} flights, holding out {len(held_out):,} ...")
    model = fit(as_matrix(training, carriers), training["late"].to_numpy())
    matrix = as_matrix(held_out, carriers)
    probability = model.predict(matrix)
    say("exporting to ONNX and comparing ...")
    artifact = export(model)
    apart = check_parity(artifact, matrix, probability)
    say(f"at most {apart:.1e} apart on the hold-out")
    profiles = check_monotone(artifact, carriers)
    say(f"monotone in weather_delay on {profiles:,} profiles; training {FOLDS} more models for the report ...")
    report = {
        "model": "flight-delay",
        "version": "1.0.0",
        "data": reports.summary(flights),
        "hold_out": reports.quality(held_out["late"], probability),
        "training_base_rate": round(float(training["late"].mean()), 6),
        "cross_validation": _cross_validation(flights, held_out, probability),
        "time_split": _time_split(flights),
        "by_carrier": reports.by_group(held_out, "carrier", probability),
        "by_weather": reports.by_group(held_out, "weather_code", probability),
        "importance": _importance(model),
        "parity_limit": PARITY_LIMIT,
        "monotone_profiles": profiles,
    }
    reference = reports.reference(training, model.predict(as_matrix(training, carriers)))
    return Trained(artifact, carriers, report, reference, matrix)


def fit(matrix: Any, late: Any) -> Any:
    """The LightGBM model: small trees, never less delay for worse weather, the same bits each time."""
    settings = {
        "objective": "binary",
        "num_leaves": 15,
        "learning_rate": 0.1,
        "min_data_in_leaf": 200,
        "monotone_constraints": [1 if feature == "weather_delay" else 0 for feature in FEATURES],
        "seed": SEED,
        # One thread: sums in another order would round otherwise.
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    return lightgbm.train(settings, lightgbm.Dataset(matrix, late, feature_name=FEATURES), TREES)


def export(model: Any) -> bytes:
    """The model as ONNX: input `features` float (rows, 4), outputs `label` and `probabilities` (rows, 2)."""
    graph = onnxmltools.convert_lightgbm(
        model,
        name="flight-delay",
        initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
        zipmap=False,
        target_opset=15,
    )
    # The converter keeps these in a set, whose order changes from one process to the next.
    opsets = sorted(((entry.domain, entry.version) for entry in graph.opset_import), reverse=True)
    del graph.opset_import[:]
    for domain, version in opsets:
        graph.opset_import.add(domain=domain, version=version)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def predict(artifact: bytes, matrix: Any) -> Any:
    """The probabilities that the artifact gives, float64 (rows,)."""
    (probabilities,) = open_session(artifact).run(["probabilities"], {"features": matrix})
    return probabilities[:, 1].astype(np.float64)


def check_parity(artifact: bytes, matrix: Any, probability: Any) -> float:
    """How far the artifact is from the trained model's `probability`, at most. Raises `GateFailed`."""
    apart = float(np.max(np.abs(predict(artifact, matrix) - probability)))
    if not apart <= PARITY_LIMIT:
        raise GateFailed(
            f"ONNX and LightGBM are {apart:.2g} apart on the hold-out; at most {PARITY_LIMIT:g} is allowed."
        )
    return apart


def check_monotone(artifact: bytes, carriers: Sequence[str]) -> int:
    """How many profiles were checked over all delays of a grid. Raises `GateFailed` where worse weather means less."""
    distances = [1, 80, 200, 300, 500, 750, 1000, 1400, 2000, 2500, 3500, 5000]
    delays = [0, 1, 2, 3, 5, 7, 10, 12, 15, 20, 22, 25, 30, 45, 60, 120]
    grid = np.array(list(itertools.product(range(len(carriers)), range(24), distances, delays)), dtype=np.float32)
    probability = predict(artifact, grid).reshape(-1, len(delays))
    falls = int((np.diff(probability, axis=1) < 0).any(axis=1).sum())
    if falls:
        raise GateFailed(f"The probability falls with worse weather on {falls} of {len(probability)} profiles.")
    return len(probability)


def write(trained: Trained, folder: Path) -> ModelPackage:
    """Put the results of a training into `folder`, which holds the manifest and the schemas. Raises `GateFailed`."""
    (folder / "model.onnx").write_bytes(trained.artifact)
    (folder / "report.json").write_text(_as_json(trained.report), encoding="utf-8")
    (folder / "report.md").write_text(reports.as_markdown(trained.report), encoding="utf-8")
    (folder / "reference.json").write_text(_as_json(trained.reference), encoding="utf-8")
    manifest = folder / MANIFEST
    text = manifest.read_text(encoding="utf-8")
    text = _replaced(text, r'(?m)^sha256 = ".*"$', f'sha256 = "{hashlib.sha256(trained.artifact).hexdigest()}"')
    names = ", ".join(f'"{carrier}"' for carrier in trained.carriers)
    text = _replaced(text, r"categories = \[.*\]", f"categories = [{names}]")
    manifest.write_text(text, encoding="utf-8")
    package = load_package(folder)
    for schema in (package.input_schema, package.features_schema):
        if sorted(schema["properties"]["carrier"]["enum"]) != sorted(trained.carriers):
            raise GateFailed("A schema's carriers are not those of the data; correct the enum there.")
    # The outputs of the examples come from the engine itself: what users will see.
    outputs = iter(_example_outputs(package))
    text = re.sub(r"(?m)^output = \{.*\}$", lambda _: f"output = {next(outputs)}", text)
    manifest.write_text(text, encoding="utf-8")
    return load_package(folder)


def differences(trained: Trained, committed: ModelPackage) -> list[str]:
    """Where the committed package is not what this training gives; empty when it is."""
    found = []
    artifact = committed.artifact_path.read_bytes()
    if hashlib.sha256(artifact).hexdigest() != committed.manifest.sha256:
        found.append("model.onnx is not the file whose sha256 stands in model.toml")
    apart = float(np.max(np.abs(predict(artifact, trained.hold_out) - predict(trained.artifact, trained.hold_out))))
    if not apart <= REPRODUCTION_LIMIT:
        found.append(f"model.onnx predicts up to {apart:.2g} otherwise; at most {REPRODUCTION_LIMIT:g} is allowed")
    if committed.manifest.options["columns"][0]["categories"] != trained.carriers:
        found.append("model.toml orders the carriers otherwise")
    for name, content in (("report.json", trained.report), ("reference.json", trained.reference)):
        if not _alike(json.loads((committed.path / name).read_text(encoding="utf-8")), content):
            found.append(f"{name} holds other numbers")
    return found


def say(line: str) -> None:
    """One line of progress."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write, or with `--check` compare. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m foretell.models.flight_delay.train", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    options = parser.parse_args(arguments)
    try:
        trained = train()
        if options.check:
            found = differences(trained, load_package(FOLDER))
            for line in found:
                say(f"differs: {line}")
            if found:
                return 1
            same = trained.artifact == (FOLDER / "model.onnx").read_bytes()
            say("the committed model is what this training gives" + (", byte for byte" if same else ""))
            return 0
        _publish(trained)
    except GateFailed as error:
        say(f"refused: {error}")
        return 1
    say(f"written to {FOLDER}: AUC {trained.report['hold_out']['auc']:.4f} on the hold-out")
    return 0


def _publish(trained: Trained) -> None:
    """Write beside the package first, so that a gate that fails leaves the package as it was."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / FOLDER.name
        shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
        write(trained, folder)
        for name in ("model.onnx", "report.json", "report.md", "reference.json", MANIFEST):
            shutil.copyfile(folder / name, FOLDER / name)


def _time_split(flights: Flights) -> dict[str, Any]:
    past, future = split_by_time(flights.table)
    return reports.quality(*_unseen(past, future))


def _cross_validation(flights: Flights, held_out: Any, probability: Any) -> dict[str, Any]:
    """Every flight predicted by a model that has not seen its day; the first fold, the hold-out, is given."""
    folds = [(held_out["late"].to_numpy(), probability)]
    folds += [_unseen(*split_by_day(flights.table, fold)) for fold in range(1, FOLDS)]
    late, predicted = (np.concatenate(parts) for parts in zip(*folds, strict=True))
    return {**reports.quality(late, predicted), "auc_of_folds": [reports.quality(*fold)["auc"] for fold in folds]}


def _unseen(past: Any, future: Any) -> tuple[Any, Any]:
    """Outcomes of `future`, and what a model trained on `past` says; carriers that `past` lacks are left out."""
    carriers = order_carriers(past)
    model = fit(as_matrix(past, carriers), past["late"].to_numpy())
    known = future[future["carrier"].isin(carriers)]
    return known["late"].to_numpy(), model.predict(as_matrix(known, carriers))


def _importance(model: Any) -> dict[str, float]:
    gain = model.feature_importance("gain")
    shares = sorted(zip(gain / gain.sum(), FEATURES, strict=True), reverse=True)
    return {feature: round(float(share), 4) for share, feature in shares}


def _example_outputs(package: ModelPackage) -> list[str]:
    engine = Engine(Registry([package]))
    outputs = []
    for example in package.examples:
        (output,) = (
            engine.predict(package, [example.features], "features")
            if example.input is None
            else engine.predict(package, [example.input], "input")
        )
        if isinstance(output, Failure):
            raise GateFailed(f"An example of the manifest fails: {output.message}")
        outputs.append("{ " + ", ".join(f"{field} = {value!r}" for field, value in output.items()) + " }")
    return outputs


def _replaced(text: str, pattern: str, line: str) -> str:
    text, count = re.subn(pattern, lambda _: line, text)
    if count != 1:
        raise GateFailed(f"model.toml has {count} lines like {pattern}; it needs one.")
    return text


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _alike(first: Any, second: Any) -> bool:
    """Whether two JSON values are the same but for the last places of their numbers."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_alike(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(_alike(*pair) for pair in zip(first, second, strict=True))
    if isinstance(first, int | float) and isinstance(second, int | float):
        return abs(first - second) <= 1e-5 * max(1, abs(first))
    return bool(first == second)


if __name__ == "__main__":
    sys.exit(main())

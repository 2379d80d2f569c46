"""The task that every peer does: predict whether a flight is late, with the flight-delay model as ONNX.

Runs in each peer's own environment, so it needs numpy and onnxruntime only, and nothing of ours.
"""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

#: The model that ships with Foretell; its columns are described in `model.toml` beside it.
MODEL = Path(__file__).resolve().parents[2] / "src" / "foretell" / "models" / "flight_delay" / "model.onnx"

CARRIERS = ("AA", "B6", "DL", "EV", "UA", "US", "WN")

Features = dict[str, Any]
Prediction = dict[str, float]


def sample(number: int) -> Features:
    """Features of a plausible flight, another one for each `number`."""
    return {
        "carrier": CARRIERS[number % len(CARRIERS)],
        "dep_hour": 5 + number % 19,
        "distance": 100.0 + number * 37 % 2400,
        "weather_delay": (0.0, 5.0, 15.0, 30.0)[number % 4],
    }


class FlightModel:
    """The model, loaded with one thread: it is small, and more threads only spin."""

    def __init__(self, artifact: Path) -> None:
        with (artifact.parent / "model.toml").open("rb") as manifest:
            options = tomllib.load(manifest)["options"]
        self._input: str = options["matrix"]
        self._output = [options["outputs"][0]["tensor"]]
        #: A number for each feature's value; a category's number is its place in the manifest.
        self._columns: list[tuple[str, Callable[[Any], float]]] = []
        for column in options["columns"]:
            categories = {value: float(place) for place, value in enumerate(column.get("categories", ()))}
            self._columns.append((column["feature"], categories.__getitem__ if categories else float))
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = 1
        session_options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(artifact), session_options, providers=["CPUExecutionProvider"])

    def matrix(self, rows: Sequence[Features]) -> npt.NDArray[np.float32]:
        """What the model takes: [rows, features]. Raises `KeyError` for an unknown carrier."""
        return np.array([[number(row[name]) for name, number in self._columns] for row in rows], dtype=np.float32)

    def run(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """One call of the model: [rows, 2], the probabilities of on time and of late."""
        probabilities: npt.NDArray[np.float32] = self._session.run(self._output, {self._input: matrix})[0]
        return probabilities

    def predict(self, features: Features) -> Prediction:
        """Predict one flight."""
        probability = float(self.run(self.matrix([features]))[0, 1])
        return {"prediction": int(probability >= 0.5), "probability": round(probability, 4)}

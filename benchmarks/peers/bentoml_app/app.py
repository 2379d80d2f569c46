# mypy: disable-error-code="import-not-found,misc,untyped-decorator"
"""The model behind BentoML, with adaptive batching."""

import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.flight import FlightModel


@bentoml.service(workers=1, traffic={"timeout": 10}, metrics={"enabled": True}, logging={"access": {"enabled": False}})
class Flight:
    """Predicts flights; each argument is batched along its first dimension."""

    def __init__(self) -> None:
        self._model = FlightModel(Path(os.environ["PEER_MODEL"]))

    # Beyond this latency it answers 503 instead of the prediction; here it must answer.
    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=10_000)
    def predict(self, flights: list[dict[str, Any]]) -> list[dict[str, Any]]:
        probabilities = self._model.run(self._model.matrix(flights))[:, 1].tolist()
        return [{"prediction": int(each >= 0.5), "probability": round(each, 4)} for each in probabilities]

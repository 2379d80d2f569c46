# mypy: disable-error-code="import-not-found,misc"
"""The model behind LitServe, with batching."""

import os
import sys
from pathlib import Path
from typing import Any

import litserve

from benchmarks.peers.flight import Features, FlightModel


class Flight(litserve.LitAPI):
    """Predicts a batch of flights."""

    def setup(self, device: str) -> None:
        self._model = FlightModel(Path(os.environ["PEER_MODEL"]))

    def batch(self, inputs: list[Features]) -> list[Features]:
        return inputs

    def predict(self, x: list[Features]) -> list[float]:
        probabilities: list[float] = self._model.run(self._model.matrix(x))[:, 1].tolist()
        return probabilities

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def encode_response(self, output: float) -> dict[str, Any]:
        return {"prediction": int(output >= 0.5), "probability": round(output, 4)}


if __name__ == "__main__":
    server = litserve.LitServer(Flight(max_batch_size=32, batch_timeout=0.001), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning", num_api_servers=1
    )

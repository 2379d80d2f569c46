# mypy: disable-error-code="import-not-found,misc"
"""The model behind Mosec, with dynamic batching: JSON in and out, one worker process."""

import os
from pathlib import Path
from typing import Any

from mosec import Server, Worker

from benchmarks.peers.flight import Features, FlightModel


class Flight(Worker):
    """Predicts a batch of flights."""

    def __init__(self) -> None:
        super().__init__()
        self._model = FlightModel(Path(os.environ["PEER_MODEL"]))

    def forward(self, data: list[Features]) -> list[dict[str, Any]]:
        probabilities = self._model.run(self._model.matrix(data))[:, 1].tolist()
        return [{"prediction": int(each >= 0.5), "probability": round(each, 4)} for each in probabilities]


if __name__ == "__main__":
    server = Server()
    # A millisecond is the shortest wait that can be asked for; the default of 10 only slows down a lone request.
    server.append_worker(Flight, num=int(os.environ.get("PEER_PROCESSES", "1")), max_batch_size=32, max_wait_time=1)
    server.run()

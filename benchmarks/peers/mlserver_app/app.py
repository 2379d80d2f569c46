# mypy: disable-error-code="import-not-found,misc"
"""The model behind MLServer, with adaptive batching: the Open Inference Protocol, a tensor for each feature."""

import os
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.flight import FlightModel


class Flight(MLModel):
    """Predicts a batch of flights."""

    async def load(self) -> bool:
        self._model = FlightModel(Path(os.environ["PEER_MODEL"]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        columns = {
            entry.name: StringCodec.decode_input(entry)
            if entry.datatype == "BYTES"
            else NumpyCodec.decode_input(entry).ravel().tolist()
            for entry in payload.inputs
        }
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        probabilities = self._model.run(self._model.matrix(rows))[:, 1:].round(4)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probability", probabilities)])

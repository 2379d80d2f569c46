"""The Python client: `Client`, and `AsyncClient` for programs with an event loop. docs/client.md has examples.

from foretell.client import Client

with Client("http://localhost:8000", token="ftl_…") as client:
    print(client.predict("sentiment", {"text": "Lovely"})["output"])
"""

from foretell.client.answers import ApiError, NotEnded, PredictionFailed, Unreachable
from foretell.client.asynchronous import AsyncClient
from foretell.client.blocking import Client
from foretell.client.calls import InvalidCall

__all__ = ["ApiError", "AsyncClient", "Client", "InvalidCall", "NotEnded", "PredictionFailed", "Unreachable"]

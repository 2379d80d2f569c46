"""The Python client: `Client`, and `AsyncClient` for programs with an event loop."""

from foretell.client.answers import ApiError, NotEnded, Unreachable
from foretell.client.asynchronous import AsyncClient
from foretell.client.blocking import Client

__all__ = ["ApiError", "AsyncClient", "Client", "NotEnded", "Unreachable"]

"""Clients that keep asking for predictions, whatever happens, and remember every promise they were given."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
from tests.faults.connection import Connection
from tests.system import FLIGHT, System

from foretell.kit.clock import uuid7

#: How long a test breaks things, and how many clients ask meanwhile. More on a machine that has the time.
FAULT_SECONDS = float(os.environ.get("FORETELL_FAULT_SECONDS", "3"))
CLIENTS = 8

#: The longest that any request may take, whatever is broken; and how long a client tries the same key.
REQUEST_TIMEOUT_S = 30.0
_GIVE_UP_S = 60.0 + 5 * FAULT_SECONDS
#: The load should find the faults, not keep the machine busy; a long run has the time for more.
_THINK_S = 0.2 if FAULT_SECONDS < 60 else 0.05
_FEATURES = {"carrier": "EV", "dep_hour": 19, "distance": 229.0, "weather_delay": 30.0}

#: What a client answers with another try of the same key: busy, or away.
_TRY_AGAIN = (409, 429, 503)


class Callers:
    """Several clients of one user, each with one request under way and an idempotency key for every prediction."""

    def __init__(self, system: System, user_id: UUID, token: str, *, body: Callable[[], dict[str, Any]] | None) -> None:
        self.user_id = user_id
        #: The prediction that each key got, by key.
        self.accepted: dict[str, UUID] = {}
        #: Keys that were answered with several predictions: there must be none.
        self.ambiguous: list[tuple[str, UUID, UUID]] = []
        #: How often each status, or kind of broken connection, was the answer.
        self.answers: Counter[int | str] = Counter()
        #: How often a retry found that an earlier try of its key was accepted although no answer had come.
        self.replays = 0
        self.slowest_s = 0.0
        #: Bodies of the 5xx answers that no client should see, whatever is broken.
        self.server_errors: list[str] = []
        self._body = body or self._flight
        self._number = 0
        self._stopping = False
        self._url = system.url
        #: What proves to the API who asks.
        self.headers = {"Authorization": f"Bearer {token}"}

    def _flight(self) -> dict[str, Any]:
        self._number += 1
        part = {"features": _FEATURES} if self._number % 3 == 0 else {"input": FLIGHT}
        return {"model": "flight-delay", **part}

    @asynccontextmanager
    async def calling(self, clients: int = CLIENTS, *, think_s: float = _THINK_S) -> AsyncIterator[None]:
        """Ask inside the block; at its end every prediction that was asked for gets its answer first."""
        tasks = [asyncio.create_task(self._call_on(think_s)) for _ in range(clients)]
        try:
            yield
        finally:
            self._stopping = True
            await asyncio.gather(*tasks)

    async def _call_on(self, think_s: float) -> None:
        connection = Connection(self._url, self.headers, timeout_s=REQUEST_TIMEOUT_S)
        try:
            while not self._stopping:
                await self._ask(connection, uuid7().hex, self._body())
                await asyncio.sleep(think_s)
        finally:
            await connection.close()

    async def _ask(self, connection: Connection, key: str, body: dict[str, Any]) -> None:
        deadline = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < deadline:
            begun = time.monotonic()
            try:
                response = await connection.post("/predictions/predict", body, {"Idempotency-Key": key})
            except httpx.TransportError as error:
                self.answers[type(error).__name__] += 1
            else:
                self.answers[response.status_code] += 1
                if response.status_code in (200, 202):
                    self.replays += "idempotency-replayed" in response.headers
                    self._remember(key, UUID(response.json()["id"]))
                    return
                if response.status_code not in _TRY_AGAIN:
                    self.server_errors.append(f"{response.status_code} {response.text[:300]}")
                    return
            finally:
                self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            await asyncio.sleep(0.1)
        self.server_errors.append(f"no answer for {_GIVE_UP_S:g} s")

    def _remember(self, key: str, prediction_id: UUID) -> None:
        earlier = self.accepted.setdefault(key, prediction_id)
        if earlier != prediction_id:
            self.ambiguous.append((key, earlier, prediction_id))

    async def progress(self, count: int = 1, *, timeout_s: float = 60.0) -> None:
        """Wait until `count` more predictions were accepted."""
        goal = len(self.accepted) + count
        deadline = time.monotonic() + timeout_s
        while len(self.accepted) < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{goal - len(self.accepted)} of {count} predictions were not accepted: {self.answers}"
                )
            await asyncio.sleep(0.02)


async def new_callers(system: System, *, body: Callable[[], dict[str, Any]] | None = None) -> Callers:
    """Clients of a new user who can pay everything. They send `body()`, or flights."""
    user_id, token = await system.new_user()
    return Callers(system, user_id, token, body=body)


async def authorized(system: System, *, credits: int = 1_000_000) -> tuple[UUID, httpx.AsyncClient]:
    """A new user with that many credits, and a client that speaks for it. To be closed."""
    user_id, token = await system.new_user(credits=credits)
    headers = {"Authorization": f"Bearer {token}"}
    # To read the certificates of authorities takes longer than most requests, and nobody needs them here.
    return user_id, httpx.AsyncClient(base_url=system.url, headers=headers, timeout=REQUEST_TIMEOUT_S, verify=False)

"""Heartbeats: a process reports its state to the monitoring service every few seconds while its event loop runs."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from foretell.kit.asgi import ASKED_WITHIN, Application, Message
from foretell.kit.metrics import Family

#: How often an instance sends a heartbeat.
HEARTBEAT_EVERY_S = 5.0

#: An unhealthy instance checks this often whether it is healthy again, and then reports it at once.
_LOOK_AGAIN_S = 1.0
_HEALTH_TIMEOUT_S = 4.0

Health = dict[str, Any]


class Heartbeat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of one instance."""

    #: As in `/health`: `app`, `dispatcher`, `ml_worker`, `model_service`, `preprocessing_service`, …
    service: str
    instance: str
    version: str
    started_at: datetime
    at: datetime
    #: The whole answer of `GET /health`: `status`, `failing`, and the details of that service.
    health: Health
    pid: int
    hostname: str
    #: Where it answers HTTP (`/metrics` for Prometheus), `HOST:PORT`.
    address: str = ""
    memory_bytes: int = 0
    #: Processor time since its start.
    cpu_s: float = 0.0
    metrics: list[Family] = []
    #: Counts of its models' rows since the last heartbeat; the contract defines their shape.
    observations: list[Any] = []
    #: Log lines that were dropped before they could be sent, since the start.
    logs_dropped: int = 0
    #: The last one: this instance stops.
    goodbye: bool = False


class Pulse:
    """Sends the state of a service regularly, from its event loop: if the loop is blocked, nothing is sent."""

    def __init__(
        self,
        app: Application,
        say: Callable[[Health], None],
        *,
        every_s: float = HEARTBEAT_EVERY_S,
        look_again_s: float = _LOOK_AGAIN_S,
        timeout_s: float = _HEALTH_TIMEOUT_S,
    ) -> None:
        """`app` answers `GET /health` within `timeout_s`; `say` sends the result and must not block."""
        self._app = app
        self._say = say
        self._every_s = every_s
        self._look_again_s = look_again_s
        self._timeout_s = timeout_s
        self._health: Health = {}
        self._serving = True
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send heartbeats until the event loop ends."""
        self._beating = asyncio.create_task(self.beat())

    def served(self) -> None:
        """The service is stopping: keep the last state, because checks would fail from now on."""
        self._serving = False

    async def beat(self) -> None:
        """Check and send until cancelled. Sends nothing if `app` has no `/health`."""
        said, said_at = "", -self._every_s
        while True:
            if self._serving:
                self._health = await self._look()
            status = str(self._health.get("status", ""))
            due = time.monotonic() - said_at >= self._every_s - self._look_again_s / 2
            if self._health and (due or status != said):
                self._say(self._health)
                said, said_at = status, time.monotonic()
            await asyncio.sleep(self._every_s if status == "healthy" else self._look_again_s)

    async def _look(self) -> Health:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await ask_health(self._app)
        except TimeoutError:
            failing = {"health": f"no answer within {self._timeout_s:g} s"}
        except Exception as error:
            failing = {"health": type(error).__name__}
        # The identity is in the previous answer, if there was one.
        return {**self._health, "status": "unhealthy", "failing": failing} if self._health else {}


async def ask_health(app: Application) -> Health:
    """The answer of `app` to `GET /health`, called without a connection; empty if it has another form."""
    body = bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        body.extend(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/health",
        "raw_path": b"/health",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": {},
        ASKED_WITHIN: True,
    }
    await app(scope, receive, send)
    try:
        health = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    told = isinstance(health, dict) and all(isinstance(health.get(name), str) for name in _IDENTITY)
    return health if told else {}


_IDENTITY = ("service", "instance", "version", "status")


def memory_bytes() -> int:
    """The resident memory of this process; if the system does not report it, the maximum so far."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024

"""What a process tells the monitoring service of itself, every few seconds as long as its event loop turns."""

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

#: An instance that is not healthy looks this often whether it is again, and says so at once.
_LOOK_AGAIN_S = 1.0
_HEALTH_TIMEOUT_S = 4.0

Health = dict[str, Any]


class Heartbeat(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one instance is."""

    #: As `/health` says it: `app`, `dispatcher`, `ml_worker`, `model_service`, `preprocessing_service`, …
    service: str
    instance: str
    version: str
    started_at: datetime
    at: datetime
    #: What `GET /health` answers, all of it: `status`, `failing`, and the details of that service.
    health: Health
    pid: int
    hostname: str
    #: Where it answers HTTP (`/metrics` for Prometheus), `HOST:PORT`.
    address: str = ""
    memory_bytes: int = 0
    #: Processor time since its start.
    cpu_s: float = 0.0
    metrics: list[Family] = []
    #: What it has seen of its models' rows since the last one; the contract says which shape that has.
    observations: list[Any] = []
    #: Log lines that could not be kept until the monitoring service took them, since the start.
    logs_dropped: int = 0
    #: The last one: this instance stops.
    goodbye: bool = False


class Pulse:
    """Says again and again how a service is, from its event loop: a loop that is stuck says nothing."""

    def __init__(
        self,
        app: Application,
        say: Callable[[Health], None],
        *,
        every_s: float = HEARTBEAT_EVERY_S,
        look_again_s: float = _LOOK_AGAIN_S,
        timeout_s: float = _HEALTH_TIMEOUT_S,
    ) -> None:
        """`app` answers `GET /health`, within `timeout_s`; `say` must not block."""
        self._app = app
        self._say = say
        self._every_s = every_s
        self._look_again_s = look_again_s
        self._timeout_s = timeout_s
        self._health: Health = {}
        self._serving = True
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Beat until the event loop ends."""
        self._beating = asyncio.create_task(self.beat())

    def served(self) -> None:
        """The service stops, and its parts with it, so it is not asked any more: it is as it was last."""
        self._serving = False

    async def beat(self) -> None:
        """Look and say until cancelled. What is no health (an app without that route) is not said."""
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
        # Who it is stands in what it said before, if it ever said anything.
        return {**self._health, "status": "unhealthy", "failing": failing} if self._health else {}


async def ask_health(app: Application) -> Health:
    """What `app` answers to `GET /health`, asked without a connection; empty when that is not what services answer."""
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
    """The memory of this process that is in use and not swapped out; where the system does not say, the most it was."""
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

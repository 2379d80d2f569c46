"""How a service looks at itself."""

import asyncio
from typing import Any

import psutil
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from foretell.kit.asgi import Operations, Receive, Scope, Send, respond
from foretell.kit.heartbeats import Health, Pulse, ask_health, memory_bytes
from foretell.kit.request_log import RequestLog


class Part:
    """What a service leans on: it works, fails or hangs."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.hangs = False
        self.asked = 0

    async def check(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(3600)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def part() -> Part:
    return Part()


@pytest.fixture
def app(part: Part) -> Any:
    operations = Operations(
        "app", instance="app-1", version="1", checks={"part": part.check}, details=lambda: {"asked": part.asked}
    )
    return RequestLog(operations)


class Listener:
    """Hears what a pulse says, one after the other."""

    def __init__(self, app: Any, *, every_s: float = 3600.0, timeout_s: float = 3600.0) -> None:
        self._heard: asyncio.Queue[Health] = asyncio.Queue()
        self.pulse = Pulse(app, self._heard.put_nowait, every_s=every_s, look_again_s=0.001, timeout_s=timeout_s)
        self.pulse.start()

    async def next(self) -> Health:
        return await asyncio.wait_for(self._heard.get(), 30)


async def test_it_is_exactly_what_health_answers(app: Any, part: Part) -> None:
    assert await ask_health(app) == {
        "status": "healthy", "asked": 1, "service": "app", "instance": "app-1", "version": "1",
    }  # fmt: skip
    part.failure = RuntimeError("gone")
    health = await ask_health(app)
    assert (health["status"], health["failing"]) == ("unhealthy", {"part": "gone"})


async def test_a_question_to_oneself_is_neither_logged_nor_counted(app: Any, part: Part) -> None:
    part.failure = RuntimeError("gone")
    before = REGISTRY.get_sample_value("foretell_http_requests_total", _FAILED_HEALTH)
    with capture_logs() as lines:
        await ask_health(app)
    assert lines == []
    assert REGISTRY.get_sample_value("foretell_http_requests_total", _FAILED_HEALTH) == before


_FAILED_HEALTH = {"route": "/health", "method": "GET", "status": "503"}


@pytest.mark.parametrize("body", [b"done", b"[]", b"{}", b'{"status": "healthy", "service": 1}', b""])
async def test_an_app_without_that_route_has_no_health(body: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, body, b"application/json")

    assert await ask_health(app) == {}


async def test_it_is_said_at_once_and_again(app: Any) -> None:
    listener = Listener(app, every_s=0.001)
    assert [(await listener.next())["asked"] for _ in range(3)] == [1, 2, 3]


async def test_that_it_is_healthy_again_is_said_at_once(app: Any, part: Part) -> None:
    part.failure = RuntimeError("not yet")
    listener = Listener(app)
    assert (await listener.next())["status"] == "unhealthy"
    while part.asked < 10:
        await asyncio.sleep(0.001)
    part.failure = None
    # What was the same as before was not worth a word.
    assert (await listener.next())["status"] == "healthy"


async def test_parts_that_hang_are_told_and_so_is_what_breaks(app: Any, part: Part) -> None:
    listener = Listener(app, every_s=0.001, timeout_s=0.01)
    assert (await listener.next())["status"] == "healthy"
    part.hangs = True
    while (health := await listener.next())["status"] == "healthy":
        pass
    assert (health["instance"], health["failing"]) == ("app-1", {"health": "no answer within 0.01 s"})


async def test_before_anything_is_known_of_an_app_nothing_is_said(part: Part) -> None:
    asked = 0

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal asked
        asked += 1
        if asked < 5:
            raise RuntimeError("broken")
        await respond(
            send, 200, b'{"status":"healthy","service":"a","instance":"a-1","version":"1"}', b"application/json"
        )

    assert (await Listener(broken).next())["instance"] == "a-1"
    assert asked == 5


async def test_a_service_that_stops_is_not_asked_any_more_but_still_beats(app: Any, part: Part) -> None:
    listener = Listener(app, every_s=0.001)
    await listener.next()
    listener.pulse.served()
    part.failure = RuntimeError("closed")
    asked = part.asked
    for _ in range(3):
        assert (await listener.next())["status"] == "healthy"
    assert part.asked == asked


async def test_a_loop_that_is_stuck_says_nothing(app: Any) -> None:
    # The pulse lives on the loop and nowhere else: without a turn of it there is no word.
    said: list[Health] = []
    pulse = Pulse(app, said.append, every_s=0.0)
    pulse.start()
    for _ in range(1000):
        pass
    assert said == []
    await asyncio.sleep(0.01)
    assert said


def test_memory_in_use_is_a_number_of_bytes() -> None:
    filler = bytearray(b"x") * (64 * 1024 * 1024)
    # Not compared with the number before: the system may take other pages of a long run away meanwhile.
    assert len(filler) < memory_bytes() < psutil.virtual_memory().total

"""RabbitMQ in alarm, or refusing what is too large: nobody who asks is refused, and nobody waits behind."""

import asyncio
import time
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from tests.faults.callers import FAULT_SECONDS, REQUEST_TIMEOUT_S, Callers, authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_rabbitmq import STRICT_BYTES, PrivateRabbitMQ
from tests.services_system import Backends
from tests.system import FLIGHT, System

from foretell.inference.runtimes import NOTHING_MORE
from foretell.inference.scaffolding import scaffold

pytestmark = pytest.mark.faults

_PATIENCE_S = 60.0
#: What brings an alarm about at once, and what ends it.
_ALARMS = {
    "disk": (("set_disk_free_limit", "1000GB"), ("set_disk_free_limit", "1MB")),
    "memory": (("set_vm_memory_high_watermark", "absolute", "1MB"), ("set_vm_memory_high_watermark", "0.4")),
}


def _assert_nobody_was_refused(callers: Callers) -> None:
    assert set(callers.answers) == {202}
    assert callers.slowest_s < REQUEST_TIMEOUT_S


async def _until_failing(system: System) -> dict[str, str]:
    """What the app's `/health` says is wrong, once it says so."""
    async with httpx.AsyncClient(base_url=system.url) as client, asyncio.timeout(_PATIENCE_S):
        while True:
            failing: dict[str, str] = (await client.get("/health")).json().get("failing", {})
            if failing:
                return failing
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("alarm", list(_ALARMS))
async def test_rabbitmq_is_in_alarm_under_load(
    fresh_postgresql: str, private_rabbitmq: PrivateRabbitMQ, private_prefix: str, tmp_path: Path, alarm: str
) -> None:
    system = Backends("servers", fresh_postgresql, private_rabbitmq.url, private_prefix).system(tmp_path)
    begin, end = _ALARMS[alarm]
    async with system.running(workers=2):
        callers = await new_callers(system)
        async with callers.calling():
            await callers.progress(50)
            await asyncio.to_thread(private_rabbitmq.control, *begin)
            until = time.monotonic() + FAULT_SECONDS
            failing = await _until_failing(system)
            assert list(failing) == ["broker"]
            assert "in alarm" in failing["broker"]
            # They are accepted all the same: they wait in the database.
            await callers.progress(50)
            await asyncio.sleep(until - time.monotonic())
            await asyncio.to_thread(private_rabbitmq.control, *end)
            await callers.progress(50)
        # And all of them say that they are healthy.
        ended = await assert_promises_kept(system, callers)
    _assert_nobody_was_refused(callers)
    assert set(ended) == {("succeeded", None)}


_ECHO = """
from pathlib import Path

from pydantic import BaseModel


class Words(BaseModel):
    text: str
    times: int


class Answer(BaseModel):
    text: str


class Echo:
    def load(self, folder: Path) -> None:
        pass

    def predict(self, batch: list[Words]) -> list[Answer]:
        return [Answer(text=row.text * row.times) for row in batch]
"""
_LARGE = 2 * STRICT_BYTES


@pytest.fixture
def on_strict_rabbitmq(fresh_postgresql: str, strict_rabbitmq: PrivateRabbitMQ, private_prefix: str) -> Backends:
    """PostgreSQL, and a RabbitMQ that takes messages of up to `STRICT_BYTES`."""
    return Backends("servers", fresh_postgresql, strict_rabbitmq.url, private_prefix)


async def test_messages_are_refused_under_load(on_strict_rabbitmq: Backends, tmp_path: Path) -> None:
    system = on_strict_rabbitmq.system(tmp_path)
    code = tmp_path / "echo.py"
    code.write_text(_ECHO)
    scaffold(code, tmp_path / "models" / "echo", name="echo", version="1.0.0", permissions=NOTHING_MORE)
    numbers = count()

    def body() -> dict[str, Any]:
        """Mostly what is small, much of which shares its envelope with what is not."""
        number = next(numbers)
        if number % 4:
            return {"model": "echo", "features": {"text": "x", "times": 10_000 if number % 2 else 1}}
        return {"model": "flight-delay", "input": FLIGHT}

    async with system.running(workers=2):
        user_id, client = await authorized(system)
        callers = await new_callers(system, body=body)
        async with client, callers.calling():
            await callers.progress(50)
            too_large = {"input_too_large": ("x" * _LARGE, 1), "output_too_large": ("x", _LARGE)}
            answers = {
                error: [await _submit(client, *words) for _ in range(3 + round(FAULT_SECONDS))]
                for error, words in too_large.items()
            }
            await callers.progress(50)
        ended = await assert_promises_kept(system, callers, ids=[each for ids in answers.values() for each in ids])
        for error, ids in answers.items():
            assert set((await system.statuses(ids)).values()) == {("failed", error)}
        # It was nobody's fault, and costs nobody anything.
        assert (await system.balance(user_id)).available == 1_000_000
    _assert_nobody_was_refused(callers)
    assert ended["succeeded", None] == len(callers.accepted)


async def _submit(client: httpx.AsyncClient, text: str, times: int) -> UUID:
    order = {"model": "echo", "features": {"text": text, "times": times}}
    answer = await client.post("/predictions/predict", json=order)
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["id"])

"""Shadows: compared when they have time, left out when they have none, and harmless whatever they do."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from foretell.contracts.messages import Failure, Result, Task, TaskEnvelope
from foretell.inference.runtimes import NOTHING_MORE
from foretell.inference.scaffolding import scaffold
from foretell.kit.clock import now, uuid7
from foretell.services.worker.shadows import Shadows

#: Stands in for the process: answers each payload with itself, and does as it is told by some.
STAND_IN = """
import os, sys, time
from foretell.contracts.messages import Result, decode_tasks, encode
from foretell.services.worker.shadow_process import framed, read_message
while (message := read_message(sys.stdin.buffer)) is not None:
    tasks = decode_tasks(message).tasks
    payloads = [bytes(task.payload) for task in tasks]
    if b'{"do":"crash"}' in payloads:
        os._exit(3)
    if b'{"do":"hang"}' in payloads:
        time.sleep(600)
    if b'{"do":"babble"}' in payloads:
        sys.stdout.buffer.write(framed(b"nonsense"))
    else:
        sys.stdout.buffer.write(framed(encode([Result(task.id, output=task.payload) for task in tasks])))
    sys.stdout.buffer.flush()
"""

MODEL = "shadowed"


def envelope(*payloads: bytes, model: str = MODEL) -> TaskEnvelope:
    return TaskEnvelope(model, "1.0.0", now(), [Task(uuid7(), "features", msgspec.Raw(each)) for each in payloads])


def results(asked: TaskEnvelope, *outputs: bytes | None) -> list[Result]:
    failure = Failure("model_error", "The model failed on this input.")
    return [
        Result(task.id, error=failure) if output is None else Result(task.id, output=msgspec.Raw(output))
        for task, output in zip(asked.tasks, outputs, strict=True)
    ]


def counted(outcome: str, shadow: str = "2.0.0", model: str = MODEL) -> float:
    labels = {"model": model, "version": "1.0.0", "shadow": shadow, "outcome": outcome}
    return REGISTRY.get_sample_value("foretell_shadow_tasks_total", labels) or 0.0


@asynccontextmanager
async def running(
    versions: list[str] | None = None, *, limit_s: float = 30.0, pause_s: float = 60.0, start_s: float = 120.0
) -> AsyncIterator[Shadows]:
    shadows = Shadows(
        lambda model: ["2.0.0"] if versions is None else versions,
        lambda model, version: limit_s,
        command=(sys.executable, "-c", STAND_IN),
        pause_s=pause_s,
        start_s=start_s,
    )
    try:
        yield shadows
    finally:
        await shadows.close()


async def test_answers_are_compared_and_counted() -> None:
    before = {outcome: counted(outcome) for outcome in ("same", "different", "failed")}
    asked = envelope(b'{"y":1.0}', b'{"y":2.0}', b'{"y":3.0}', b'{"y":4.0}')
    async with running() as shadows:
        with capture_logs() as logs:
            assert shadows.offer(asked, results(asked, b'{"y":1.00001}', b'{"y":2.5}', b'{"y":3.0}', None))
            await shadows.idle()
    found = {outcome: counted(outcome) - before[outcome] for outcome in before}
    assert found == {"same": 2, "different": 2, "failed": 0}
    (compared,) = [entry for entry in logs if entry["event"] == "shadow_compared"]
    assert {compared[key] for key in ("model", "version", "shadow")} == {MODEL, "1.0.0", "2.0.0"}
    # No value of anybody's input or output is logged.
    assert "2.5" not in str(logs)
    labels = {"model": MODEL, "version": "1.0.0", "shadow": "2.0.0", "field": "y"}
    assert REGISTRY.get_sample_value("foretell_shadow_difference_sum", labels) == pytest.approx(0.50001)


async def test_without_shadows_there_is_no_process() -> None:
    asked = envelope(b"{}")
    async with running([]) as shadows:
        assert not shadows.offer(asked, results(asked, b"{}"))
    async with running(["1.0.0"]) as shadows:
        # A version is no shadow of itself.
        assert not shadows.offer(asked, results(asked, b"{}"))


async def test_what_comes_while_a_shadow_is_busy_is_left_out() -> None:
    asked = envelope(b"{}")
    async with running() as shadows:
        assert shadows.offer(asked, results(asked, b"{}"))
        assert not shadows.offer(asked, results(asked, b"{}"))
        await shadows.idle()
        assert shadows.offer(asked, results(asked, b"{}"))


@pytest.mark.parametrize("mischief", ["crash", "hang", "babble"])
async def test_a_shadow_that_misbehaves_pauses_and_comes_back(mischief: str) -> None:
    bad, good = envelope(b'{"do":"%s"}' % mischief.encode()), envelope(b'{"y":1}')
    before = counted("failed")
    async with running(limit_s=3.0, start_s=0.0) as shadows:
        with capture_logs() as logs:
            assert shadows.offer(bad, results(bad, b"{}"))
            await shadows.idle()
        assert counted("failed") == before + 1
        assert [entry["event"] for entry in logs] == ["shadow_failed"]
        assert not shadows.offer(good, results(good, b'{"y":1}'))
    async with running(limit_s=30.0, pause_s=0.0) as shadows:
        if mischief != "hang":
            with capture_logs():
                shadows.offer(bad, results(bad, b"{}"))
                await shadows.idle()
        same = counted("same")
        assert shadows.offer(good, results(good, b'{"y":1}'))
        await shadows.idle()
        assert counted("same") == same + 1


CLASS = """
import sys
from pydantic import BaseModel

class Features(BaseModel):
    x: float

class Answer(BaseModel):
    y: float

class Model:
    def predict(self, batch: list[Features]) -> list[Answer]:
        print("a model may print what it likes")
        return [Answer(y=features.x * {factor}) for features in batch]
"""


async def test_a_process_that_has_written_more_than_was_read_is_ended() -> None:
    # An answer of no length, and much behind it.
    babbling = "import sys, time; sys.stdout.buffer.write(bytes(1_000_000)); time.sleep(3600)"
    shadows = Shadows(lambda model: ["2.0.0"], lambda model, version: 30.0, command=(sys.executable, "-c", babbling))
    async with asyncio.timeout(120):
        assert shadows.offer(envelope(b"{}"), results(envelope(b"{}"), b"{}"))
        await shadows.idle()
        await shadows.close()


async def test_the_real_process_runs_installed_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    for version, factor in (("1.0.0", 2), ("2.0.0", 3)):
        source = tmp_path / f"f{factor}.py"
        source.write_text(CLASS.format(factor=factor))
        scaffold(source, models / version, name="scaled", version=version, permissions=NOTHING_MORE)
    capfd.readouterr()
    monkeypatch.setenv("FORETELL_MODELS_DIR", str(models))
    asked = envelope(b'{"x":0.0}', b'{"x":5.0}', model="scaled")
    shadows = Shadows(lambda model: ["2.0.0"], lambda model, version: 120.0)
    try:
        assert shadows.offer(asked, results(asked, b'{"y":0.0}', b'{"y":10.0}'))
        await shadows.idle()
    finally:
        await shadows.close()
    assert [counted(outcome, model="scaled") for outcome in ("same", "different", "failed")] == [1, 1, 0]
    assert "a model may print what it likes" in capfd.readouterr().err

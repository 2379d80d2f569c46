"""Models come, change and go while people ask for them: nobody is refused, nothing fails, nobody pays twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.faults.callers import authorized
from tests.faults.promises import assert_promises_kept
from tests.system import System, wait_until

from foretell.inference.installing import install, remove
from foretell.inference.live import touch_stamp
from foretell.inference.runtimes import NOTHING_MORE
from foretell.inference.scaffolding import scaffold

CLIENTS = 6
CLASS = """
from pydantic import BaseModel

class Features(BaseModel):
    x: float

class Answer(BaseModel):
    by: str

class Model:
    def predict(self, batch: list[Features]) -> list[Answer]:
        return [Answer(by="{by}") for _ in batch]
"""

Put = Callable[..., None]


@pytest.fixture
def put(system: System, tmp_path: Path) -> Put:
    """Installs a version of the model `steps`, whose answers say `by`."""

    def put(version: str, *, by: str, replace: bool = False) -> None:
        source = tmp_path / f"steps-{by}.py"
        source.write_text(CLASS.format(by=by))
        package = tmp_path / f"package-{by}"
        scaffold(source, package, name="steps", version=version, permissions=NOTHING_MORE)
        install(package, system.folder / "models", replace=replace)

    return put


class Askers:
    """Clients that ask for the model without naming a version, one request after the other."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.problems: list[str] = []
        self.answers: Counter[str] = Counter()
        #: As the latest answers were.
        self.recent: list[str] = []
        self.stopping = False

    async def ask(self) -> None:
        """Until `stopping` is set."""
        while not self.stopping:
            order = {"model": "steps", "features": {"x": 1}}
            answer = await self._client.post("/predictions/predict", json=order, headers={"Prefer": "wait=30"})
            body: dict[str, Any] = answer.json()
            if answer.status_code != 200 or body["status"] != "succeeded":
                self.problems.append(answer.text)
                continue
            by = body["output"]["by"]
            self.answers[by] += 1
            self.recent = [*self.recent[-2 * CLIENTS :], by]

    async def until(self, *expected: str) -> None:
        """Until what is answered now are these, and all of these."""
        self.recent = []
        async with asyncio.timeout(60):
            while len(self.recent) < 2 * CLIENTS or set(self.recent) != set(expected):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def asking(client: httpx.AsyncClient) -> AsyncIterator[Askers]:
    askers = Askers(client)
    tasks = [asyncio.create_task(askers.ask()) for _ in range(CLIENTS)]
    try:
        yield askers
    finally:
        # Nothing is canceled: a client that is canceled in a request may leave its connection open.
        askers.stopping = True
        await asyncio.gather(*tasks)


def logged(system: System, text: str) -> bool:
    """Whether a worker has written this."""
    return any(text in system.log_of(worker) for worker in system.alive("worker"))


@pytest.mark.timeout(480)
async def test_nobody_notices_that_models_come_change_and_go(system: System, put: Put) -> None:
    _, client = await authorized(system)
    async with client:
        put("1.0.0", by="first")
        async with asyncio.timeout(60):
            while (await client.get("/models/steps")).status_code == 404:
                await asyncio.sleep(0.05)
        async with asking(client) as askers:
            await askers.until("first")
            put("2.0.0", by="second")
            await askers.until("second")
            put("2.0.0", by="changed", replace=True)
            await askers.until("changed")

            rules = system.folder / "models" / "traffic.toml"
            rules.write_text('[steps]\nweights = { "1.0.0" = 1, "2.0.0" = 1 }\n')
            touch_stamp(rules.parent)
            await askers.until("first", "changed")

            rules.write_text('[steps]\nshadow = ["1.0.0"]\n')
            touch_stamp(rules.parent)
            await askers.until("changed")
            await wait_until(lambda: logged(system, '"shadow_compared"'), timeout_s=60, what="a shadow to be compared")
            rules.unlink()
            touch_stamp(rules.parent)

            remove("steps", "2.0.0", rules.parent)
            await askers.until("first")
        assert askers.problems == []
        assert set(askers.answers) == {"first", "second", "changed"}
        gone = await client.post(
            "/predictions/predict", json={"model": "steps", "version": "2.0.0", "features": {"x": 1}}
        )
        assert (gone.status_code, gone.json()["code"]) == (404, "model_not_found")
    remove("steps", "1.0.0", system.folder / "models")
    await assert_promises_kept(system)

"""Every service is told to stop in turn, under load and with event streams open: each stream ends in order."""

import asyncio
import json
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest
from tests.faults import faulty_model
from tests.faults.callers import FAULT_SECONDS, authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.system import System

from foretell.services.worker.work import EXIT_HANGING_MODEL

pytestmark = pytest.mark.faults

_STREAMS = 6
#: Of each followed prediction: longer than it takes to stop a service and to start it again.
_SLOW_MS = 1000


@dataclass
class Follower:
    """Follows one prediction to its end, as a browser does: a stream that ended is opened again."""

    client: httpx.AsyncClient
    prediction_id: UUID
    streams: int = 0
    status: str = "queued"

    async def follow(self) -> None:
        """Until the last event. Raises what a stream that was cut off raises."""
        while self.status == "queued":
            begun = False
            try:
                async with self.client.stream("GET", f"/predictions/{self.prediction_id}/events") as stream:
                    if stream.status_code == 503:
                        continue
                    assert stream.status_code == 200
                    begun = True
                    self.streams += 1
                    async for line in stream.aiter_lines():
                        if line.startswith("data: "):
                            self.status = json.loads(line.removeprefix("data: "))["status"]
            except httpx.TransportError:
                # Nobody listens: the old one is gone (with whoever knocked at that moment), the new one not there yet.
                if begun:
                    raise
                await asyncio.sleep(0.1)


async def test_a_stop_of_each_service_in_turn_cuts_no_stream_off(system: System) -> None:
    callers = await new_callers(system)
    _, client = await authorized(system)
    order = {"model": faulty_model.NAME, "input": faulty_model.flight(faulty_model.SLEEPS_MS + _SLOW_MS)}
    ids: list[UUID] = []
    async with client, system.supervised(), callers.calling(clients=4):
        for _ in range(max(1, round(FAULT_SECONDS / 20))):
            for service in ("app", "dispatcher", "worker"):
                answers = [await client.post("/predictions/predict", json=order) for _ in range(_STREAMS)]
                followers = [Follower(client, UUID(answer.json()["id"])) for answer in answers]
                ids += [each.prediction_id for each in followers]
                following = asyncio.gather(*(each.follow() for each in followers))
                while not all(each.streams for each in followers):
                    assert not following.done()
                    await asyncio.sleep(0.02)
                statuses = set(await system.end(system.alive(service)))
                # Two that are slow may share an envelope, and then run into the model's limit as a whole.
                assert statuses <= ({0, EXIT_HANGING_MODEL} if service == "worker" else {0})
                await asyncio.wait_for(following, 60)
                assert {each.status for each in followers} == {"succeeded"}
                if service == "app":
                    # Those that waited longest were told to come again, and did.
                    assert max(each.streams for each in followers) > 1
                await callers.progress(10)
    ended = await assert_promises_kept(system, callers, ids=ids)
    assert set(ended) == {("succeeded", None)}

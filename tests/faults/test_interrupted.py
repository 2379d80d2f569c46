"""Connections to RabbitMQ that break while all processes live, as often as a task may be delivered."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from tests.faults.callers import authorized
from tests.faults.promises import assert_promises_kept
from tests.faults.slow_models import ASKED, waits_for, write_python_model
from tests.relay import relayed
from tests.services_rabbitmq import PrivateRabbitMQ
from tests.services_system import Backends
from tests.system import System, wait_until

from foretell.contracts import queues

pytestmark = pytest.mark.faults

_PATIENCE_S = 120.0


def _redeliveries(system: System) -> int:
    logs = [system.log_of(running) for running in system.processes if running.service == "worker"]
    return sum(log.count("message_redelivered") for log in logs)


async def test_a_task_survives_more_interruptions_than_it_has_attempts(
    fresh_postgresql: str, private_rabbitmq: PrivateRabbitMQ, private_prefix: str, tmp_path: Path
) -> None:
    may_end = tmp_path / "may-end"
    write_python_model(tmp_path / "models", "long", predict=waits_for(may_end), timeout_s=300.0)
    async with relayed(private_rabbitmq.url) as (relay, url):
        backends = Backends("servers", fresh_postgresql, url, private_prefix)
        # A worker acknowledges a long run after some pulses: here after all interruptions.
        system = backends.system(tmp_path, FORETELL_TASK_PULSE_S="10")
        async with system.running(workers=2):
            _, client = await authorized(system)
            async with client:
                answer = await client.post("/predictions/predict", json={"model": "long", "features": {"x": ASKED}})
                assert answer.status_code == 202, answer.text
            ids = [UUID(answer.json()["id"])]
            while await system.count_where("published_at IS NULL") or await system.ready(queues.TASKS):
                await asyncio.sleep(0.1)
            (dispatcher,) = system.alive("dispatcher")

            def swept() -> bool:
                return '"reason":"interrupted"' in system.log_of(dispatcher)

            # RabbitMQ may deliver it to a worker whose connection is cut in the same moment: that counts, too.
            while not swept():
                seen = _redeliveries(system)
                assert relay.cut() >= len(system.alive("worker"))
                await wait_until(
                    lambda seen=seen: swept() or _redeliveries(system) > seen,  # type: ignore[misc]
                    timeout_s=_PATIENCE_S,
                    what="the redelivery or, after the last one, the sweep",
                )
            may_end.touch()
            ended = await assert_promises_kept(system, ids=ids)
    assert ended == {("succeeded", None): 1}

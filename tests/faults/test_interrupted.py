"""Connections to RabbitMQ that break while all processes live, as often as a task may be delivered."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from tests.faults.callers import authorized
from tests.faults.promises import assert_promises_kept
from tests.faults.slow_models import ASKED, write_python_model
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
    backends = Backends("servers", fresh_postgresql, private_rabbitmq.url, private_prefix)
    # So long a pulse that the run is not acknowledged before it ends.
    system = backends.system(tmp_path, FORETELL_TASK_PULSE_S="10")
    write_python_model(tmp_path / "models", "long", takes_s=30.0, timeout_s=300.0)
    async with system.running(workers=2):
        _, client = await authorized(system)
        async with client:
            answer = await client.post("/predictions/predict", json={"model": "long", "features": {"x": ASKED}})
            assert answer.status_code == 202, answer.text
        ids = [UUID(answer.json()["id"])]
        while await system.count_where("published_at IS NULL") or await system.ready(queues.TASKS):
            await asyncio.sleep(0.1)
        for interruptions in range(1, queues.DELIVERY_LIMIT + 1):
            await asyncio.to_thread(private_rabbitmq.control, "close_all_connections", "for a test")
            if interruptions < queues.DELIVERY_LIMIT:
                await wait_until(
                    lambda expected=interruptions: _redeliveries(system) >= expected,  # type: ignore[misc]
                    timeout_s=_PATIENCE_S,
                    what="the redelivery",
                )
        (dispatcher,) = system.alive("dispatcher")
        await wait_until(
            lambda: '"reason":"interrupted"' in system.log_of(dispatcher), timeout_s=_PATIENCE_S, what="the sweep"
        )
        ended = await assert_promises_kept(system, ids=ids)
    assert ended == {("succeeded", None): 1}

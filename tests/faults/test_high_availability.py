"""Two of everything that is ours, PostgreSQL under Patroni: any one of them dies, and nothing accepted is lost."""

import asyncio
import time
from pathlib import Path

import pytest
from tests.faults.callers import REQUEST_TIMEOUT_S, Callers, new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_patroni import PatroniCluster
from tests.services_system import Backends
from tests.system import System

pytestmark = pytest.mark.faults

#: So long after a death, predictions are accepted and succeed again, however busy the machine is.
_SERVING_AGAIN_S = 120.0


async def _results_come_again(system: System, callers: Callers, what: str) -> None:
    """Wait until what is accepted from now on succeeds; prints how long that took."""
    begun = time.monotonic()
    await callers.progress(5, timeout_s=_SERVING_AGAIN_S)
    last = list(callers.accepted.values())[-1]
    async with asyncio.timeout(_SERVING_AGAIN_S):
        while (await system.statuses([last])).get(last, ("queued", None))[0] != "succeeded":
            await asyncio.sleep(0.05)
    print(f"{what}: serving again after {time.monotonic() - begun:.1f} s")


async def test_any_one_of_them_dies(
    patroni_cluster: PatroniCluster, rabbitmq_url: str, broker_prefix: str, tmp_path: Path
) -> None:
    backends = Backends("servers", patroni_cluster.url, rabbitmq_url, broker_prefix)
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    system, second = map(backends.system, folders)
    second.secret = system.secret
    system.wanted = {"app": 1, "dispatcher": 2, "worker": 2}
    second.wanted = {"app": 1}
    try:
        await asyncio.gather(system.heal(), second.heal())
        # Clients of the two apps, one user each.
        callers, others = await new_callers(system), await new_callers(second)
        async with system.supervised(), second.supervised(), callers.calling(4), others.calling(4):
            await callers.progress(20)
            await others.progress(20)
            for service in ("worker", "dispatcher", "app"):
                system.kill(system.alive(service)[0])
                # Whoever asks the other app notices nothing.
                await _results_come_again(system, others, f"a {service} was killed")
                await _results_come_again(system, callers, f"a {service} was killed, its own clients")
            for number, node in enumerate(patroni_cluster.etcd):
                await asyncio.to_thread(node.kill)
                await _results_come_again(system, callers, f"node {number} of etcd was killed")
                node.start()
            leader = await asyncio.to_thread(lambda: patroni_cluster.leader)
            standby = next(node for node in patroni_cluster.nodes if node is not leader)
            await asyncio.to_thread(standby.kill)
            await _results_come_again(system, callers, "the standby was killed, with its Patroni")
            await asyncio.to_thread(standby.start)
            await asyncio.to_thread(patroni_cluster.wait_for_standby)
            await asyncio.to_thread(leader.kill)
            await _results_come_again(system, callers, "the primary was killed, with its Patroni")
            await asyncio.to_thread(leader.start)
            await asyncio.to_thread(patroni_cluster.wait_for_standby)
            # What was the primary is a standby, and takes over again.
            await asyncio.to_thread((await asyncio.to_thread(lambda: patroni_cluster.leader)).kill)
            await _results_come_again(system, callers, "the other one, too")
        assert await asyncio.to_thread(lambda: patroni_cluster.leader) is leader
        for each in (callers, others):
            ended = await assert_promises_kept(system, each)
            assert set(each.answers) <= {200, 202, 503, "ConnectError", "ReadError", "RemoteProtocolError"}
            assert each.slowest_s < REQUEST_TIMEOUT_S
            assert set(ended) == {("succeeded", None)}
        assert {answer for answer in others.answers if isinstance(answer, str)} == set()
    finally:
        await asyncio.gather(system.stop(), second.stop())

"""The network between services and servers fails: packets are dropped in one direction or both, or many of them.

The quick form cuts everybody off from one server at once, until all have noticed. The long one
(`FORETELL_FAULT_SECONDS` of a minute or more) also cuts off each service alone. Each prints what the clients heard
meanwhile, and how long it took until the fault was seen in `/health` and until all was well again.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from tests.asides import run_aside
from tests.faults.callers import FAULT_SECONDS, Callers, new_callers
from tests.faults.partitioned import MONITORING, HealthWatch, PartitionedSystem
from tests.faults.promises import assert_promises_kept
from tests.network import HUB_ADDRESS, Direction, Network
from tests.ports import free_port
from tests.services_database import PrivatePostgresql, postgresql_programs
from tests.services_rabbitmq import PrivateRabbitMQ, rabbitmq_programs

from foretell.kit.clock import now

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300 + 5 * FAULT_SECONDS)]

_LONG = FAULT_SECONDS >= 60
#: Every request is answered within this long, of health too: three times what is promised, for a slow machine.
_ANSWERED_WITHIN_S = 15.0
#: Within this long after the end of the fault, all is well again: three times what is promised, too.
_WELL_AGAIN_S = 180.0
#: As slow as this, what waits at the end of a long fault is no heavy load.
_CLIENTS, _THINK_S = 3, 0.2
_SERVICES = ("app", "dispatcher", "worker")
#: Who talks to which server.
_CLIENTS_OF = {"broker": _SERVICES, "database": ("app", "dispatcher"), MONITORING: _SERVICES}


@dataclass(frozen=True)
class Fault:
    """Packets between some services and one server that are lost."""

    services: tuple[str, ...]
    server: str
    direction: Direction
    share: float = 1.0

    def __str__(self) -> str:
        who = "everybody" if self.services == _CLIENTS_OF[self.server] else " ".join(self.services)
        way = {"both": "both ways", "to": "to it only", "from": "from it only"}[self.direction]
        return f"{who} and {self.server}, {way}" + (f", {self.share:.0%}" if self.share < 1 else "")


def _partitions() -> Iterator[Fault]:
    directions: tuple[Direction, ...] = ("both", "to", "from")
    for server in ("broker", "database"):
        for direction in directions:
            # A one-way fault of the database is the harder one.
            if _LONG or (server, direction) != ("database", "both"):
                yield Fault(_CLIENTS_OF[server], server, direction)
            if _LONG:
                for service in _CLIENTS_OF[server]:
                    yield Fault((service,), server, direction)


@dataclass
class Surroundings:
    """A network, the servers at its hub, and a system around it."""

    network: Network
    ports: dict[str, int]
    system: PartitionedSystem

    def begin(self, fault: Fault) -> None:
        for service in fault.services:
            self.network.lose(service, self.ports[fault.server], fault.direction, share=fault.share)

    async def nothing_is_left_behind(self) -> None:
        """Wait until no server keeps a connection that its client has given up."""
        async with asyncio.timeout(_WELL_AGAIN_S):
            while any(self.network.abandoned(port) for port in self.ports.values()):
                await asyncio.sleep(0.5)


@pytest.fixture(scope="module")
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    folder = tmp_path_factory.mktemp("partitions")
    network = Network()
    try:
        for service in _SERVICES:
            network.add_leg(service)
        with network.entered():
            postgresql = PrivatePostgresql(postgresql_programs(), address=HUB_ADDRESS)
            rabbitmq = PrivateRabbitMQ(rabbitmq_programs(), address=HUB_ADDRESS)
            ports = {"database": postgresql.port, "broker": rabbitmq.port, MONITORING: free_port()}
            system = PartitionedSystem(
                folder,
                network,
                monitoring_port=ports[MONITORING],
                database_url=postgresql.url,
                broker_url=rabbitmq.url,
            )
            try:
                postgresql.start()
                rabbitmq.start()
                run_aside(system.start(workers=2))
                with network.left():
                    yield Surroundings(network, ports, system)
            finally:
                run_aside(system.stop())
                rabbitmq.remove()
                postgresql.remove()
    finally:
        network.remove()


@pytest.fixture
def surroundings(_surroundings: Surroundings) -> Iterator[Surroundings]:
    """A healthy system, two workers in it, and this test beside its servers."""
    with _surroundings.network.entered():
        run_aside(_surroundings.system.heal())
        try:
            yield _surroundings
        finally:
            _surroundings.network.heal()


@pytest.mark.parametrize("fault", list(_partitions()), ids=str)
async def test_a_partition_ends(surroundings: Surroundings, fault: Fault) -> None:
    system = surroundings.system
    watch = HealthWatch(system, _ANSWERED_WITHIN_S)
    callers = await new_callers(system)
    async with watch.watching(), callers.calling(_CLIENTS, think_s=_THINK_S):
        await callers.progress(10)
        before, began = Counter(callers.answers), time.monotonic()
        surroundings.begin(fault)
        noticed = await watch.all_say(fault.services, {fault.server}, timeout_s=_WELL_AGAIN_S)
        # Whoever can reach everything is well meanwhile.
        await watch.all_say({*_SERVICES, MONITORING} - {*fault.services}, set(), timeout_s=_WELL_AGAIN_S)
        await asyncio.sleep(max(0.0, began + FAULT_SECONDS - time.monotonic()))
        if _is_refused(fault):
            # What is noticed soon may end before anybody has waited in vain.
            async with asyncio.timeout(_WELL_AGAIN_S):
                while not callers.answers[503]:
                    await asyncio.sleep(0.1)
        await _settles_again(surroundings, watch, callers, _Report(fault, callers.answers - before, noticed - began))
    await surroundings.nothing_is_left_behind()
    ended = await assert_promises_kept(system, callers)
    assert set(ended) == {("succeeded", None)}
    _assert_answers(fault, callers)
    assert watch.unanswered == 0


@pytest.mark.parametrize("server", ["broker", "database"] if _LONG else ["broker"])
async def test_a_third_of_the_packets_is_lost(surroundings: Surroundings, server: str) -> None:
    fault = Fault(_CLIENTS_OF[server], server, "both", share=0.3)
    watch = HealthWatch(surroundings.system, _ANSWERED_WITHIN_S)
    callers = await new_callers(surroundings.system)
    async with watch.watching(), callers.calling(_CLIENTS, think_s=_THINK_S):
        await callers.progress(10)
        before = Counter(callers.answers)
        surroundings.begin(fault)
        # Slower, but it goes on.
        await callers.progress(10, timeout_s=_WELL_AGAIN_S)
        await asyncio.sleep(FAULT_SECONDS)
        await _settles_again(surroundings, watch, callers, _Report(fault, callers.answers - before, None))
    await surroundings.nothing_is_left_behind()
    ended = await assert_promises_kept(surroundings.system, callers)
    assert set(ended) == {("succeeded", None)}
    _assert_answers(fault, callers)


async def test_the_monitoring_service_is_cut_off(surroundings: Surroundings) -> None:
    system = surroundings.system
    fault = Fault(_CLIENTS_OF[MONITORING], MONITORING, "both")
    watch = HealthWatch(system, _ANSWERED_WITHIN_S)
    callers = await new_callers(system)
    async with watch.watching(), callers.calling(_CLIENTS, think_s=_THINK_S):
        await callers.progress(10)
        before, began = Counter(callers.answers), now()
        surroundings.begin(fault)
        await callers.progress(20)
        await asyncio.sleep(FAULT_SECONDS)
        # Nothing that anybody needs is away.
        await watch.all_say({*_SERVICES, MONITORING}, set(), timeout_s=_WELL_AGAIN_S)
        ended = now()
        await _settles_again(surroundings, watch, callers, _Report(fault, callers.answers - before, None))
    assert set(await assert_promises_kept(system, callers)) == {("succeeded", None)}
    _assert_answers(fault, callers)
    # What was logged meanwhile arrives now, all of it.
    async with httpx.AsyncClient(base_url=system.monitoring_url) as client, asyncio.timeout(_WELL_AGAIN_S):
        for service, message in (("app", "request_finished"), ("dispatcher", "predictions_settled")):
            meanwhile = {"service": service, "since": began.isoformat(), "until": ended.isoformat(), "limit": "1"}
            while not (await client.get("/reports/logs", params={**meanwhile, "text": message})).json():
                await asyncio.sleep(0.2)
        for running in system.alive():
            metrics = (await client.get(f"http://{running.host}:{running.port}/metrics")).text
            assert "foretell_log_lines_dropped_total 0.0" in metrics


@dataclass
class _Report:
    fault: Fault
    answers: "Counter[int | str]"
    noticed_s: float | None

    def show(self, settling_s: float, well_s: float) -> None:
        noticed = "-" if self.noticed_s is None else f"{self.noticed_s:.1f}"
        print(f"| {self.fault} | {dict(self.answers)} | {noticed} | {settling_s:.1f} | {well_s:.1f} |")


async def _settles_again(surroundings: Surroundings, watch: HealthWatch, callers: Callers, report: _Report) -> None:
    """End the fault; wait until predictions asked for afterwards succeed, and everybody is well."""
    system = surroundings.system
    surroundings.network.heal()
    healed = time.monotonic()
    async with asyncio.timeout(_WELL_AGAIN_S):
        known = set(callers.accepted)
        await callers.progress(5, timeout_s=_WELL_AGAIN_S)
        asked_since = [callers.accepted[key] for key in callers.accepted.keys() - known]
        while {status for status, _ in (await system.statuses(asked_since)).values()} != {"succeeded"}:
            await asyncio.sleep(0.2)
        settling_s = time.monotonic() - healed
        await watch.all_say(_SERVICES, set(), timeout_s=_WELL_AGAIN_S)
    report.show(settling_s, time.monotonic() - healed)


def _without_database(fault: Fault) -> bool:
    return fault.server == "database" and "app" in fault.services


def _is_refused(fault: Fault) -> bool:
    return _without_database(fault) and fault.share == 1


def _assert_answers(fault: Fault, callers: Callers) -> None:
    # A client that gave up would stand here as a ReadTimeout.
    assert set(callers.answers) <= ({200, 202, 503} if _without_database(fault) else {202})
    assert callers.slowest_s < _ANSWERED_WITHIN_S
    if _is_refused(fault):
        assert callers.answers[503]

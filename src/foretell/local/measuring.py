"""Measure the whole path of a running system, from the request to the settled prediction."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from foretell.client.load import Load, put_load, request
from foretell.kit.clock import uuid7

#: How many predictions are queued, of the user that makes the load.
CountQueued = Callable[[], Awaitable[int]]

_WARM_UP_S = 2.0
_DRAIN_S = 60.0


@dataclass(frozen=True)
class ProcessUse:
    """Resources of one process: CPU per prediction, and memory at the end."""

    cpu_us_per_prediction: float
    memory_mib: float


@dataclass(frozen=True)
class Throughput:
    """Submissions as fast as possible, by `clients` that do not wait for results."""

    clients: int
    seconds: float
    accepted_per_s: float
    settled_per_s: float
    #: From the request to its 202.
    p50_ms: float
    p95_ms: float
    p99_ms: float
    left_over: int
    drained_after_s: float
    refused: dict[int, int]
    #: Without those that ended meanwhile: what they used is unknown.
    processes: dict[str, ProcessUse]


@dataclass(frozen=True)
class Latency:
    """From the request to its result, with `Prefer: wait`."""

    clients: int
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Measured:
    """A running app at `url`, and a user with a token and enough credits for the load."""

    def __init__(
        self,
        url: str,
        token: str,
        order: Mapping[str, Any],
        count_queued: CountQueued,
        processes: Mapping[str, int],
    ) -> None:
        """`order` is the body of a submission; `processes` are ids by name, to account for."""
        self._url = url
        self._token = token
        self._body = json.dumps(order).encode()
        self._count_queued = count_queued
        self._processes: dict[str, psutil.Process] = {}
        for name, pid in processes.items():
            with suppress(psutil.NoSuchProcess):
                self._processes[name] = psutil.Process(pid)

    def _request(self, wait: bool) -> bytes:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Idempotency-Key": uuid7().hex,
        }
        if wait:
            headers["Prefer"] = "wait=30"
        return request("POST", "/predictions/predict", headers, self._body)

    async def warm_up(self) -> None:
        """Fill caches and connection pools, unmeasured."""
        await put_load(self._url, clients=16, seconds=_WARM_UP_S, next_request=lambda: self._request(False))
        await put_load(self._url, clients=1, seconds=_WARM_UP_S / 2, next_request=lambda: self._request(True))

    async def throughput(self, *, clients: int, seconds: float) -> Throughput:
        """Submit as fast as possible, and then wait until all predictions have ended."""
        used_before = self._cpu_s()
        queued_before = await self._count_queued()
        load = await put_load(self._url, clients=clients, seconds=seconds, next_request=lambda: self._request(False))
        accepted = load.statuses.get(202, 0)
        ended = accepted + queued_before - await self._count_queued()
        finished_at = time.perf_counter()
        while (left := await self._count_queued()) > 0:
            if time.perf_counter() - finished_at > _DRAIN_S:
                break
            await asyncio.sleep(0.02)
        processes = self._use_since(used_before, accepted)
        return Throughput(
            clients=clients,
            seconds=round(load.duration_s, 1),
            accepted_per_s=accepted / load.duration_s,
            settled_per_s=ended / load.duration_s,
            p50_ms=load.percentile_s(50) * 1000,
            p95_ms=load.percentile_s(95) * 1000,
            p99_ms=load.percentile_s(99) * 1000,
            left_over=left,
            drained_after_s=round(time.perf_counter() - finished_at, 2),
            refused={status: count for status, count in load.statuses.items() if status != 202},
            processes=processes,
        )

    async def latency(self, *, clients: int, seconds: float, per_second: float | None = None) -> Latency:
        """Request predictions one after the other, and wait for each result."""
        load: Load = await put_load(
            self._url,
            clients=clients,
            seconds=seconds,
            next_request=lambda: self._request(True),
            per_second=per_second,
        )
        if load.statuses.keys() - {200}:
            raise RuntimeError(f"not every answer was a result: {load.statuses}")
        return Latency(
            clients=clients,
            per_s=load.per_second,
            p50_ms=load.percentile_s(50) * 1000,
            p95_ms=load.percentile_s(95) * 1000,
            p99_ms=load.percentile_s(99) * 1000,
        )

    def _cpu_s(self) -> dict[str, float]:
        used = {}
        for name, process in self._processes.items():
            with suppress(psutil.NoSuchProcess):
                used[name] = _family_cpu_s(process)
        return used

    def _use_since(self, before: Mapping[str, float], accepted: int) -> dict[str, ProcessUse]:
        """What each process that was there all the time has used since then, for so many predictions."""
        use = {}
        for name, used_s in self._cpu_s().items():
            with suppress(psutil.NoSuchProcess):
                if name in before:
                    memory_mib = self._processes[name].memory_info().rss / 2**20
                    use[name] = ProcessUse((used_s - before[name]) / max(accepted, 1) * 1e6, memory_mib)
        return use


def _family_cpu_s(process: psutil.Process) -> float:
    """Processor time of a process and its children: PostgreSQL works in children, which come and go."""
    own = process.cpu_times()
    if process.pid == os.getpid():
        # Its children are measured by themselves: the load generator may have started them.
        return float(own.user + own.system)
    # What ended children have used is counted at their parent.
    used = own.user + own.system + own.children_user + own.children_system
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            used += times.user + times.system
    return float(used)

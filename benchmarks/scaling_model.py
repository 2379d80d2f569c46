"""A simulation of the way of a prediction: who works on it, how long, how many at once, on how many cores.

It knows what the code does (intake, publishing, worker and settlement take whatever waits as one batch; a process does
one thing at a time; a commit waits for the disk) and, of the machine, what one run measured: the processor time of
each part, as so much for a batch and so much for a prediction in it. Nothing else is fitted.
"""

import heapq
import itertools
import random
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: Who works, in the order of the way. `load` is whoever asks.
PARTS = ("load", "app", "postgresql", "rabbitmq", "worker", "dispatcher")
#: Tasks of one envelope, and predictions of one settlement and one intake, at most.
_MAX_ENVELOPE, _MAX_SETTLED, _MAX_INTAKE = 256, 2048, 256
#: Of what one prediction costs app and PostgreSQL, the part that comes before its 202.
_SHARE_BEFORE = {"app": 0.75, "postgresql": 0.5}


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time of one part, in seconds."""

    per_batch_s: float
    per_prediction_s: float

    def of(self, count: int, share: float = 1.0) -> float:
        """For a batch of `count`."""
        return share * (self.per_batch_s + self.per_prediction_s * count)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where it runs."""

    #: Cores that all parts share; None: every process has one of its own.
    cores: int | None = None
    apps: int = 1
    workers: int = 3
    dispatchers: int = 1
    #: How many statements PostgreSQL, and how many messages RabbitMQ, works on at once.
    postgresql: int = 16
    rabbitmq: int = 16
    commit_s: float = 0.0005


@dataclass(slots=True)
class Outcome:
    """What a simulated run showed."""

    accepted_per_s: float = 0.0
    settled_per_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    #: From the request to its settlement.
    settled_p50_ms: float = 0.0
    #: Processor time of each part per prediction, and how many predictions its batches had.
    cpu_us: dict[str, float] = field(default_factory=dict)
    batch: dict[str, float] = field(default_factory=dict)


class _Line:
    """So many servers, and who waits for one of them, in the order of coming."""

    def __init__(self, servers: int) -> None:
        self.free = servers
        self.waiting: deque[Callable[[], None]] = deque()

    def enter(self, work: Callable[[], None]) -> None:
        if self.free:
            self.free -= 1
            work()
        else:
            self.waiting.append(work)

    def leave(self) -> None:
        if self.waiting:
            self.waiting.popleft()()
        else:
            self.free += 1


class Simulation:
    """One run. Times in seconds; nothing is random but when an open load's requests come."""

    def __init__(self, costs: Mapping[str, Cost], layout: Layout) -> None:
        self._costs = costs
        self._layout = layout
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._cores = _Line(layout.cores or 1_000_000)
        servers = {
            "load": 1_000_000 if layout.cores is None else 1, "app": layout.apps, "worker": layout.workers,
            "dispatcher": layout.dispatchers, "postgresql": layout.postgresql, "rabbitmq": layout.rabbitmq,
        }  # fmt: skip
        self._parts = {name: _Line(count) for name, count in servers.items()}
        self._used: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._batches: dict[str, list[int]] = {name: [] for name in ("intake", "worker", "settlement")}
        self._intake: list[tuple[float, bool]] = []
        self._intakes_free = layout.apps
        self._publishing: list[float] = []
        self._publishers_free = layout.apps
        self._envelopes: deque[list[float]] = deque()
        self._workers_free = layout.workers
        self._results: list[float] = []
        self._settlers_free = layout.dispatchers
        self._latencies: list[float] = []
        self._settled: list[tuple[float, float]] = []
        self._random = random.Random(1)

    def closed(self, clients: int, seconds: float) -> Outcome:
        """`clients` that send the next request when the last one was answered."""
        self._ask(clients, again=True)
        return self._run(seconds)

    def open(self, per_second: float, seconds: float) -> Outcome:
        """Requests that come at random, so many a second, whatever becomes of the others."""

        def come() -> None:
            self._ask(1, again=False)
            self._after(self._random.expovariate(per_second), come)

        come()
        return self._run(seconds)

    def _run(self, seconds: float) -> Outcome:
        while self._events and self._events[0][0] <= seconds:
            self._now, _, what = heapq.heappop(self._events)
            what()
        asked = max(len(self._latencies), 1)
        late = sorted(self._latencies[asked // 5 :]) or [0.0]
        settled = [end - begin for begin, end in self._settled[len(self._settled) // 5 :]] or [0.0]
        return Outcome(
            accepted_per_s=len(self._latencies) / seconds,
            settled_per_s=len(self._settled) / seconds,
            p50_ms=1000 * late[len(late) // 2],
            p99_ms=1000 * late[len(late) * 99 // 100],
            settled_p50_ms=1000 * statistics.median(settled),
            cpu_us={name: used / asked * 1e6 for name, used in self._used.items()},
            batch={name: statistics.mean(sizes) for name, sizes in self._batches.items() if sizes},
        )

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._count), what))

    def _work(self, part: str, seconds: float, then: Callable[[], None]) -> None:
        """Let one of `part` work for so long, when it and a core are free."""

        def done() -> None:
            self._cores.leave()
            self._parts[part].leave()
            then()

        def begin() -> None:
            self._used[part] += seconds
            self._after(seconds, done)

        self._parts[part].enter(lambda: self._cores.enter(begin))

    # The way of a prediction.

    def _ask(self, count: int, *, again: bool) -> None:
        """Send so many requests at once: whoever makes the load takes up all answers that have come."""
        asked_at = self._now

        def arrived() -> None:
            self._intake += [(asked_at, again)] * count
            self._take_in()

        self._work("load", self._costs["load"].of(count), arrived)

    def _take_in(self) -> None:
        if not self._intakes_free or not self._intake:
            return
        self._intakes_free -= 1
        batch, self._intake = self._intake[:_MAX_INTAKE], self._intake[_MAX_INTAKE:]
        self._batches["intake"].append(len(batch))

        def committed() -> None:
            self._intakes_free += 1
            self._publishing += [asked_at for asked_at, _ in batch]
            self._latencies += [self._now - asked_at for asked_at, _ in batch]
            if next_ones := sum(again for _, again in batch):
                self._ask(next_ones, again=True)
            self._publish()
            self._take_in()

        def accepted() -> None:
            self._after(self._layout.commit_s, committed)

        def checked() -> None:
            self._work("postgresql", self._costs["postgresql"].of(len(batch), _SHARE_BEFORE["postgresql"]), accepted)

        self._work("app", self._costs["app"].of(len(batch), _SHARE_BEFORE["app"]), checked)

    def _publish(self) -> None:
        if not self._publishers_free or not self._publishing:
            return
        self._publishers_free -= 1
        batch, self._publishing = self._publishing[:_MAX_ENVELOPE], self._publishing[_MAX_ENVELOPE:]

        def stored() -> None:
            self._publishers_free += 1
            self._envelopes.append(batch)
            self._run_models()
            self._publish()

        def sent() -> None:
            self._work("rabbitmq", self._costs["rabbitmq"].of(len(batch), 0.5), stored)

        self._work("app", self._costs["app"].of(len(batch), 1 - _SHARE_BEFORE["app"]), sent)

    def _run_models(self) -> None:
        if not self._workers_free or not self._envelopes:
            return
        self._workers_free -= 1
        batch = self._envelopes.popleft()
        self._batches["worker"].append(len(batch))

        def handed_back() -> None:
            self._workers_free += 1
            self._results.extend(batch)
            self._settle()
            self._run_models()

        def ran() -> None:
            self._work("rabbitmq", self._costs["rabbitmq"].of(len(batch), 0.5), handed_back)

        self._work("worker", self._costs["worker"].of(len(batch)), ran)

    def _settle(self) -> None:
        if not self._settlers_free or not self._results:
            return
        self._settlers_free -= 1
        batch, self._results = self._results[:_MAX_SETTLED], self._results[_MAX_SETTLED:]
        self._batches["settlement"].append(len(batch))

        def committed() -> None:
            self._settlers_free += 1
            self._settled += [(asked_at, self._now) for asked_at in batch]
            self._settle()

        def done() -> None:
            self._after(self._layout.commit_s, committed)

        def decided() -> None:
            share = 1 - _SHARE_BEFORE["postgresql"]
            self._work("postgresql", self._costs["postgresql"].of(len(batch), share), done)

        self._work("dispatcher", self._costs["dispatcher"].of(len(batch)), decided)

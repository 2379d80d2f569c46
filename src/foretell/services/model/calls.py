"""Calls one version of one model for many callers at once.

Single rows share calls: rows that arrive during a call, or in the same iteration of the event loop, are the next batch
(`kit/batching.py`). There is no timer, so a single row is not delayed. A small model answers in microseconds, faster
than a switch to a thread, so it is called on the event loop; longer calls run in a thread.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import structlog

from foretell.contracts.messages import Failure, Stage
from foretell.inference.engine import Engine
from foretell.inference.observing import Watch, unwatched
from foretell.inference.package import ModelPackage, RuntimeName
from foretell.inference.registry import Registry
from foretell.inference.runtimes import Runtime, load_runtime
from foretell.kit import metrics
from foretell.kit.batching import Batcher
from foretell.kit.errors import ForetellError
from foretell.kit.offloading import Offloading, StillBusy
from foretell.services.model.measures import RUN_DURATION_S
from foretell.services.model.tensors import Signature, signature_of

log = structlog.get_logger()

Row = dict[str, Any]

#: Runtimes whose calls compute in the calling thread. Other runtimes may wait for a server or run a user's class.
_COMPUTING: frozenset[RuntimeName] = frozenset({"onnx", "skops", "joblib", "mlflow"})
#: More waiting single rows of one model can't be answered in time and get 503.
_MAX_WAITING = 4_000


class ModelTimeout(ForetellError):
    """The model {model} did not answer within {timeout_s} s."""

    code = "timeout"
    status = 504


class ModelHangs(ForetellError):
    """The model {model} hangs since an earlier call. Try again later, or ask the operator to restart the service."""

    code = "model_hangs"
    status = 503
    retry_after_s = 10.0


class ModelCalls:
    """One loaded package, with its own engine, so that it can be dropped or replaced as a whole."""

    def __init__(
        self,
        package: ModelPackage,
        *,
        load: Callable[[ModelPackage], Runtime] = load_runtime,
        watch: Watch = unwatched,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`clock` times calls, by processor time, so that the load of other processes does not count."""
        self.package = package
        self._engine = Engine(Registry([package]), load=load, watch=watch)
        self._offloading = Offloading(
            timeout_s=package.timeout_s,
            may_run_on_loop=package.manifest.runtime in _COMPUTING,
            clock=clock,
        )
        self._turn = asyncio.Semaphore(1)
        self._observe_duration = RUN_DURATION_S.labels(package.name, package.version).observe
        observe_size = metrics.BATCH_ITEMS.labels("model").observe
        # All rows of a batch have the same stage.
        stages: tuple[Stage, ...] = ("input", "features")
        #: The batchers of single rows.
        self.singles: dict[Stage, Batcher[Any, Row | Failure]] = {
            stage: Batcher(
                partial(self._call, stage=stage),
                max_batch=package.max_batch,
                max_waiting=_MAX_WAITING,
                gather=True,
                observe_size=observe_size,
            )
            for stage in stages
        }

    def warm(self) -> None:
        """Load the model, make its first predictions and time them. Blocks. Raises `PackageBroken`."""
        self._engine.warm(self.package.name)
        if self.package.manifest.runtime in _COMPUTING:
            self._time()

    @cached_property
    def signature(self) -> Signature:
        """The model's input and output tensors."""
        return signature_of(self.package)

    @property
    def hangs(self) -> bool:
        """Whether a call has exceeded its time limit and not returned."""
        return self._offloading.overdue

    def predict_one(self, row: Any, stage: Stage) -> "asyncio.Future[Row | Failure]":
        """The output or failure of one row. Raises `Overloaded`, `ModelTimeout` and `ModelHangs`."""
        return self.singles[stage].enqueue(row)

    async def predict_many(self, rows: Sequence[Any], stage: Stage) -> list[Row | Failure]:
        """An output or a failure for each row. Raises `ModelTimeout` and `ModelHangs`.

        The rows of a request are already a batch and do not wait for other rows. Between its calls, other requests run.
        """
        size = self._offloading.part_for_loop(self.package.max_batch)
        outcomes: list[Row | Failure] = []
        for start in range(0, len(rows), size):
            if start:
                await asyncio.sleep(0)
            async with self._turn:
                outcomes += await self._call(rows[start : start + size], stage)
        return outcomes

    async def _call(self, rows: Sequence[Any], stage: Stage) -> list[Row | Failure]:
        """Call the model once, with at most `max_batch` rows."""
        started = time.perf_counter()
        try:
            outcomes = await self._offloading.run(len(rows), lambda: self._engine.predict(self.package, rows, stage))
        except StillBusy:
            raise ModelHangs(model=self.package.name) from None
        except TimeoutError:
            self._observe_duration(time.perf_counter() - started)
            log.error("model_timed_out", model=self.package.name, version=self.package.version, rows=len(rows))
            raise ModelTimeout(model=self.package.name, timeout_s=self.package.timeout_s) from None
        self._observe_duration(time.perf_counter() - started)
        return outcomes

    def _time(self) -> None:
        """Measure calls with the package's first example, up to the batch size that is too slow for the event loop."""
        for example in self.package.examples[:1]:
            stage: Stage = "features" if example.input is None else "input"
            row = example.features if example.input is None else example.input
            size = 1
            while size <= self.package.max_batch:
                for _ in range(3):
                    rehearse = partial(self._engine.predict, self.package, [row] * size, stage, rehearsal=True)
                    self._offloading.timed(size, rehearse)
                if not self._offloading.fits_loop(size):
                    return
                size *= 2

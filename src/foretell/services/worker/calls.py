"""Calls a model in a thread, within its time limit."""

import asyncio
import faulthandler
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Protocol

import structlog

from foretell.contracts.messages import Result, TaskEnvelope
from foretell.inference.loading import State
from foretell.kit import metrics
from foretell.kit.in_hand import InHand
from foretell.services.worker.measures import RUN_DURATION_S

log = structlog.get_logger()

#: While a model holds the interpreter's lock, Python code can't enforce the limit. This long after it, faulthandler's
#: thread, which needs no lock, ends the process.
_HARD_LIMIT_EXTRA_S = 3.0
#: Loading a model may hold the lock for long and so delay a call of another model.
_HARD_LIMIT_LOADING_S = 3600.0
#: The time limit is counted in steps of this, so that time during which the whole process was stopped counts little.
_STEP_S = 1.0


class Runner(Protocol):
    """The part of the engine that a worker uses."""

    def run(self, envelope: TaskEnvelope) -> list[Result]:
        """Results in the order of the tasks. Never raises because of the envelope's contents."""


class Models(Protocol):
    """The load states of models."""

    def state(self, model: str, version: str) -> State:
        """The load state of a version. An unknown one is ready, because the engine answers with the error."""

    def reason(self, model: str, version: str) -> str:
        """Why a version that is `FAILED` can't be loaded."""

    @property
    def under_way(self) -> bool:
        """Whether a model is being loaded now."""


class Calls:
    """Calls models, one call at a time."""

    def __init__(
        self,
        engine: Runner,
        models: Models,
        time_limit_s: Callable[[str, str], float],
        in_hand: InHand | None = None,
    ) -> None:
        """`time_limit_s(model, version)` is how long one call of a model may take."""
        self._in_hand = in_hand or InHand()
        self._engine = engine
        self._models = models
        self._time_limit_s = time_limit_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._calling = False

    def models_changed(self) -> None:
        """Adapt the hard limit of the current call to a load that begins."""
        if self._calling and self._models.under_way:
            faulthandler.dump_traceback_later(_HARD_LIMIT_LOADING_S, exit=True)

    async def run(self, envelope: TaskEnvelope) -> Sequence[Result] | None:
        """The results of the tasks; None when the model did not answer within its time limit."""
        limit_s = self._time_limit_s(envelope.model, envelope.version)
        metrics.BATCH_ITEMS.labels("worker").observe(len(envelope.tasks))
        hard_limit_s = _HARD_LIMIT_LOADING_S if self._models.under_way else limit_s + _HARD_LIMIT_EXTRA_S
        faulthandler.dump_traceback_later(hard_limit_s, exit=True)
        self._in_hand.run(f"{envelope.model} {envelope.version}")
        running = asyncio.get_running_loop().run_in_executor(
            self._thread, copy_context().run, self._engine.run, envelope
        )
        self._calling = True
        left_s, done = limit_s, False
        try:
            with RUN_DURATION_S.labels(envelope.model, envelope.version).time():
                while not done and left_s > 0:
                    await asyncio.wait({running}, timeout=min(left_s, _STEP_S))
                    done = running.done()
                    left_s -= _STEP_S
        finally:
            self._calling = False
            faulthandler.cancel_dump_traceback_later()
        if done:
            self._in_hand.run("")
            return running.result()
        log.error("model_hung", model=envelope.model, version=envelope.version, limit_s=limit_s)
        return None

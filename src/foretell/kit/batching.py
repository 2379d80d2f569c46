"""Batch what is already waiting; never wait for a batch.

While one batch is being handled, arriving items are queued; they are the next batch. So a single item is handled at
once, and under load all items of a batch share the fixed cost of a commit, a publish or a model call.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from math import inf
from typing import Generic, NamedTuple, TypeVar

from foretell.kit.errors import Overloaded

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class _Entry(NamedTuple, Generic[Item, Outcome]):
    """A queued item."""

    item: Item
    #: Gets the outcome or the exception.
    receive: Callable[[Outcome | BaseException], None]
    #: Whether the caller has given up.
    given_up: Callable[[], bool]
    #: When it was queued, by the event loop's clock.
    since: float


class Batcher(Generic[Item, Outcome]):
    """Passes waiting items to `handle`, one batch at a time (or `concurrency` batches).

    `handle` gets between 1 and `max_batch` items and returns one outcome per item, in order. An outcome that is an
    exception is raised only to the caller of that item; an exception *raised* by `handle` is raised to every caller of
    the batch. With more than `max_waiting` items in the queue, `submit` raises `Overloaded`. An item that has
    waited for longer than `patience_s` also gets `Overloaded`, and is not handled.

    If a caller is cancelled, its item is dropped while it is queued; an item that is being handled is completed.
    """

    def __init__(
        self,
        handle: Callable[[list[Item]], Awaitable[Sequence[Outcome | BaseException]]],
        *,
        max_batch: int,
        max_waiting: int = 10_000,
        concurrency: int = 1,
        patience_s: float = inf,
        gather: bool = False,
        observe_size: Callable[[int], None] | None = None,
    ) -> None:
        """`gather`: start a batch only after an iteration of the event loop that added no item.

        Use it if `handle` runs on the event loop: no item can arrive meanwhile, so a batch would contain only the
        items of one iteration. A single item waits for one iteration, which takes microseconds.
        """
        self._handle = handle
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._concurrency = concurrency
        self._patience_s = patience_s
        self._gather = gather
        self._observe_size = observe_size
        self._waiting: deque[_Entry[Item, Outcome]] = deque()
        self._runners: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """The number of queued items, without batches that are being handled."""
        return len(self._waiting)

    def enqueue(self, item: Item, *, since: float | None = None) -> "asyncio.Future[Outcome]":
        """Queue `item` and return the future of its outcome. Raises `Overloaded`.

        `since`: when its wait began, by the event loop's clock, if that was before now.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if since is None:
            since = future.get_loop().time()
        self._put(_Entry(item, partial(_settle, future), future.cancelled, since))
        return future

    def enqueue_for(self, receive: Callable[[Outcome | BaseException], None], item: Item) -> None:
        """Queue `item`; `receive` is called once with its outcome, or with what `submit` would raise.

        Use it if a future and an iteration of the event loop would cost more than the item. Raises `Overloaded`.
        """
        self._put(_Entry(item, receive, _never, asyncio.get_running_loop().time()))

    def _put(self, entry: _Entry[Item, Outcome]) -> None:
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded
        self._waiting.append(entry)
        if len(self._runners) < self._concurrency:
            # A batch belongs to no request: with its own context, its log lines do not name the first request.
            runner = asyncio.get_running_loop().create_task(self._run(), context=Context())
            self._runners.add(runner)
            runner.add_done_callback(self._runners.discard)

    async def submit(self, item: Item, *, since: float | None = None) -> Outcome:
        """Queue `item` and wait for its outcome; `since` as for `enqueue`."""
        return await self.enqueue(item, since=since)

    async def drain(self) -> None:
        """Wait until the queue is empty and no batch is being handled."""
        while self._runners:
            await asyncio.wait(self._runners)

    async def _run(self) -> None:
        try:
            await self._handle_what_waits()
        finally:
            # Removed here and not by a done callback, which runs later: an item that is queued in between (by a caller
            # that was just answered, for example) would wait for a runner that has stopped.
            current = asyncio.current_task()
            assert current is not None
            self._runners.discard(current)

    async def _handle_what_waits(self) -> None:
        while self._waiting:
            if self._gather:
                await self._until_none_comes()
            batch: list[Item] = []
            receivers: list[Callable[[Outcome | BaseException], None]] = []
            too_late: list[Callable[[Outcome | BaseException], None]] = []
            still_in_time = asyncio.get_running_loop().time() - self._patience_s
            while self._waiting and len(batch) < self._max_batch:
                item, receive, given_up, since = self._waiting.popleft()
                if since < still_in_time:
                    too_late.append(receive)
                elif not given_up():
                    batch.append(item)
                    receivers.append(receive)
            _hand_out([Overloaded() for _ in too_late], too_late)
            if not batch:
                continue
            if self._observe_size is not None:
                self._observe_size(len(batch))
            try:
                outcomes = await self._handle(batch)
                if len(outcomes) != len(batch):
                    raise RuntimeError(f"{len(batch)} items went into a batch and {len(outcomes)} outcomes came out")
            except BaseException as error:
                outcomes = [error if isinstance(error, Exception) else asyncio.CancelledError()] * len(batch)
                if not isinstance(error, Exception):
                    _hand_out(outcomes, receivers)
                    raise
            _hand_out(outcomes, receivers)

    async def _until_none_comes(self) -> None:
        seen = 0
        while seen < len(self._waiting) < self._max_batch:
            seen = len(self._waiting)
            await asyncio.sleep(0)


def _hand_out(
    outcomes: Sequence[Outcome | BaseException], receivers: Sequence[Callable[[Outcome | BaseException], None]]
) -> None:
    for receive, outcome in zip(receivers, outcomes, strict=True):
        try:
            receive(outcome)
        except Exception as error:
            # Continue, because the other items of the batch still need their outcomes.
            context = {"message": "the receiver of an outcome failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


def _settle(future: "asyncio.Future[Outcome]", outcome: Outcome | BaseException) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
        # Read the exception, so that asyncio does not warn if the caller has given up.
        future.exception()
    else:
        future.set_result(outcome)


def _never() -> bool:
    return False

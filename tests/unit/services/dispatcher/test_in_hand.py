"""What a dispatcher remembers of what workers say."""

from datetime import timedelta
from uuid import UUID

from foretell.contracts import queues
from foretell.contracts.messages import TasksKept
from foretell.kit.clock import now
from foretell.services.dispatcher.in_hand import InHand

FIRST, SECOND = UUID(int=1), UUID(int=2)


class Clock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_last_attempt_is_remembered_for_as_long_as_a_broker_may_take() -> None:
    clock = Clock()
    in_hand = InHand(4.0, listening_since=lambda: -1000.0, clock=clock)
    in_hand.hear(TasksKept("worker-1", [FIRST], "held", queues.DELIVERY_LIMIT))
    in_hand.hear(TasksKept("worker-1", [SECOND], "held", queues.DELIVERY_LIMIT - 1))
    for seconds in range(0, 600, 5):
        clock.now = seconds
        in_hand.look()
        assert in_hand.last_attempt_started(FIRST)
        assert not in_hand.last_attempt_started(SECOND)
    clock.now = 600.0
    in_hand.look()
    assert not in_hand.last_attempt_started(FIRST)


def test_what_was_published_before_a_worker_lost_the_broker_was_disturbed() -> None:
    in_hand = InHand(4.0, listening_since=lambda: -1000.0, clock=Clock())
    before = now()
    assert not in_hand.interrupted_since(before)
    in_hand.hear(TasksKept("worker-1", [FIRST], "held"))
    assert not in_hand.interrupted_since(before)
    in_hand.hear(TasksKept("worker-1", [], "held", cut_off=True))
    assert in_hand.interrupted_since(before)
    assert not in_hand.interrupted_since(now())
    # Nobody says when it was.
    assert in_hand.interrupted_since(now() + timedelta(minutes=1))


def test_what_was_published_before_everything_was_heard_may_have_been_disturbed() -> None:
    since: list[float | None] = [-10.0]
    in_hand = InHand(4.0, listening_since=lambda: since[0], clock=Clock())
    assert not in_hand.interrupted_since(now() - timedelta(seconds=9))
    assert in_hand.interrupted_since(now() - timedelta(seconds=11))
    since[0] = None
    assert in_hand.interrupted_since(now())


def test_a_worker_gives_up_its_own_lease_only() -> None:
    """Two workers load a model: one returns a task, the other takes the copy, and is heard first."""
    clock = Clock()
    in_hand = InHand(4.0, listening_since=lambda: -1000.0, clock=clock)
    in_hand.hear(TasksKept("worker-1", [FIRST, SECOND], "alone"))
    in_hand.hear(TasksKept("worker-2", [FIRST], "alone", 1))
    in_hand.hear(TasksKept("worker-1", [FIRST, SECOND], "returned"))
    assert FIRST in in_hand
    assert SECOND not in in_hand
    # Had it been forgotten, nobody would miss the task if the second worker died now.
    clock.now = queues.PULSES_OF_SILENCE * 4.0 + 0.1
    assert in_hand.abandoned == {FIRST: 1}


def test_a_lease_that_was_renewed_is_no_longer_abandoned() -> None:
    clock = Clock()
    in_hand = InHand(4.0, listening_since=lambda: -1000.0, clock=clock)
    in_hand.hear(TasksKept("worker-1", [FIRST, SECOND], "alone"))
    clock.now = queues.PULSES_OF_SILENCE * 4.0 + 0.1
    abandoned = in_hand.abandoned
    assert set(abandoned) == {FIRST, SECOND}
    # A copy is published, and a worker takes it before the publisher is told that the broker has it.
    in_hand.hear(TasksKept("worker-2", [FIRST], "alone"))
    in_hand.forget_abandoned(abandoned)
    assert FIRST in in_hand
    assert in_hand.abandoned == {}

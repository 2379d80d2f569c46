"""When a worker says that it was cut off from the broker."""

from typing import Any

from foretell.services.worker.keeping import Interruptions


class Fed:
    """A consumer, as far as it says since when it has been fed."""

    def __init__(self, since: float | None = None) -> None:
        self.since = since


class Said:
    """How often it was said, and whether it can be."""

    def __init__(self) -> None:
        self.times = 0
        self.works = True

    async def __call__(self) -> bool:
        self.times += 1
        return self.works


async def _looks(interruptions: Interruptions, consumer: Any, *moments: float | None) -> None:
    for since in moments:
        consumer.since = since
        await interruptions.look(consumer)


async def test_to_wait_for_the_first_registration_is_no_interruption() -> None:
    said = Said()
    interruptions = Interruptions(said)
    await _looks(interruptions, Fed(), None, None, 1.0, 1.0)
    assert said.times == 0


async def test_an_interruption_is_told_when_it_begins_and_when_it_is_over() -> None:
    said = Said()
    interruptions = Interruptions(said)
    consumer = Fed()
    await _looks(interruptions, consumer, 1.0, None, None)
    assert said.times == 1
    await _looks(interruptions, consumer, 2.0, 2.0)
    assert said.times == 2
    # One that nobody saw while it lasted.
    await _looks(interruptions, consumer, 3.0, 3.0)
    assert said.times == 3


async def test_it_is_told_until_that_works() -> None:
    said = Said()
    interruptions = Interruptions(said)
    said.works = False
    await _looks(interruptions, Fed(), 1.0, None, None, 2.0)
    assert said.times == 3
    said.works = True
    await _looks(interruptions, Fed(), None, None)
    assert said.times == 4


async def test_another_consumer_is_no_interruption() -> None:
    said = Said()
    interruptions = Interruptions(said)
    await interruptions.look(Fed(1.0))  # type: ignore[arg-type]
    await _looks(interruptions, Fed(), None, 2.0)
    assert said.times == 0

"""Who changes the models hears which service can't load what, and does not wait for ever."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from foretell.local.following import Following, NotFollowed, Unloadable, sentences
from foretell.local.installation import Program

Said = Mapping[str, Any] | None

WORKER, MODEL = (Program(name, name, f"{name}-1", "127.0.0.1", 1) for name in ("worker", "model"))
LOADED = {"models_stamp": "new", "loading": {}, "unavailable": {}}
LOADING = {"models_stamp": "new", "loading": {"wine 2.0.0": 3.0}}


class Service:
    """Processes that answer what a test says, one answer after the other, the last again and again."""

    def __init__(self, **answers: list[Said]) -> None:
        self._answers = answers
        self.now = 0.0
        self.pids: Iterator[int] | None = None
        self.slow: list[str] = []

    def ask(self, program: Program) -> Said:
        waiting = self._answers[program.name]
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def following(self) -> Following:
        return Following(
            [WORKER, MODEL],
            lambda: "new",
            lambda: {"worker": next(self.pids) if self.pids else 1, "model": 2},
            ask=self.ask,
            on_slow=self.slow.extend,
            clock=lambda: self.now,
            pause=self._pass,
        )

    def _pass(self, seconds: float) -> None:
        self.now += 10 * seconds


def wine(what: str) -> bool:
    return what == "wine 2.0.0"


def test_it_is_over_when_everybody_has_followed() -> None:
    service = Service(worker=[None, {"models_stamp": "old"}, LOADING, LOADED], model=[LOADED])
    assert service.following().until_done(wine) == []


def test_what_cannot_be_loaded_is_said_with_its_reason_once() -> None:
    broken = {**LOADED, "unavailable": {"wine 2.0.0": "It is corked.", "beer 1.0.0": "It is flat."}}
    found = Service(worker=[LOADING, broken], model=[broken]).following().until_done(wine)
    assert set(found) == {Unloadable(name, "wine 2.0.0", "It is corked.") for name in ("worker", "model")}
    assert sentences(found) == "model, worker can't load wine 2.0.0: It is corked."


def test_a_process_that_ends_while_it_loads_is_not_waited_for() -> None:
    service = Service(worker=[None, LOADING], model=[LOADED])
    service.pids = iter([5, 0, 6, 6, 0, 7])
    (found,) = service.following().until_done(wine)
    assert (found.program, found.reason) == ("worker", "The process ends again and again while it loads.")


@pytest.mark.parametrize("said", [None, {"models_stamp": "old"}, LOADING], ids=["silent", "behind", "loading"])
def test_nobody_waits_for_ever(said: Said) -> None:
    service = Service(worker=[said], model=[LOADED])
    with pytest.raises(NotFollowed, match=r"^worker did not say within"):
        service.following().until_done(wine)


def test_what_loads_for_long_has_its_time() -> None:
    service = Service(worker=[*[LOADING] * 200, LOADED], model=[LOADED])
    assert service.following().until_done(wine) == []
    assert service.slow == ["worker"]


@pytest.mark.parametrize("concerns", [wine, lambda _: False])
def test_what_others_load_concerns_nobody(concerns: Callable[[str], bool]) -> None:
    other = {"models_stamp": "new", "loading": {"beer 1.0.0": 3.0}, "unavailable": {"ale 1.0.0": "It is flat."}}
    assert Service(worker=[other], model=[LOADED]).following().until_done(concerns) == []

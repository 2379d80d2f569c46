"""What the engine does for the bot: addresses, and a start that does not wait for others' services."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ports import free_port

from foretell.local.addresses import addresses_of
from foretell.local.engine import LocalEngine
from foretell.local.installation import Installation, Program
from foretell.local.services import Service

HERE = "foretell.kit.clock"
STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]
PROGRAMS = [
    Program("app", "app", "app-1", "0.0.0.0", 8000),
    Program("monitoring", "monitoring", "monitoring-1", "127.0.0.1", 8003),
]
BOT = Program("bot", "bot", "bot-1", "127.0.0.1", 8004)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation(tmp_path / "data")
    made.prepare()
    return made


@pytest.fixture
def engines(installation: Installation) -> Iterator[list[LocalEngine]]:
    made: list[LocalEngine] = []
    yield made
    for engine in made:
        engine.stop(force=True)


def test_without_a_bot_nobody_is_told_of_one() -> None:
    assert addresses_of(PROGRAMS) == {"FORETELL_MONITORING_URL": "http://127.0.0.1:8003"}


def test_app_and_bot_find_one_another() -> None:
    settings = addresses_of([*PROGRAMS, BOT])
    assert settings["FORETELL_BOT_URL"] == "http://127.0.0.1:8004"
    assert settings["FORETELL_APP_URL"] == "http://127.0.0.1:8000"


@pytest.mark.parametrize("kind", ["sick", "crash"])
def test_a_start_does_not_wait_for_what_depends_on_others(
    installation: Installation, engines: list[LocalEngine], kind: str
) -> None:
    front = Service("front", HERE, port=free_port())
    clock = iter(range(0, 1_000_000, 2))
    engine = LocalEngine(
        installation,
        table=[front, Service(kind, HERE, awaited=False)],
        serve_command=STAND_IN,
        environment=dict(os.environ),
        clock=lambda: next(clock),
    )
    engines.append(engine)
    engine.launch()
    *_, statuses = engine.until_healthy()
    healthy = {status.name: status.healthy for status in statuses}
    assert healthy[kind] is False
    if kind == "sick":
        # A busy machine starts it late: then it does not listen yet.
        until = time.monotonic() + 60
        while (why := engine.not_working()) == {"sick": "does not listen"} and time.monotonic() < until:
            time.sleep(0.1)
        assert why == {"sick": "head: a headache"}


def test_what_is_left_out_says_why(installation: Installation, engines: list[LocalEngine]) -> None:
    needy = Service("needy", HERE, needs=("NEEDY_TOKEN",))
    engine = LocalEngine(
        installation,
        table=[Service("front", HERE, port=free_port()), needy],
        serve_command=STAND_IN,
        environment=os.environ,
    )
    engines.append(engine)
    assert engine.launch() == ["The needy is not started: NEEDY_TOKEN is not set."]
    assert [status.service for status in list(engine.until_healthy())[-1]] == ["front"]
    assert engine.left_out(engine.running_record()) == {"needy": "off (no NEEDY_TOKEN)"}

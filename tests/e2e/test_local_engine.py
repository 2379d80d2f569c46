"""The local engine with the real services, as a user drives it: by the command line alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.ports import free_port

from foretell.local.services import SERVICES

FORETELL = [sys.executable, "-P", "-m", "foretell.cli"]
TELEGRAM_TOKEN = "123456:AAnobody"
FLIGHT = ["carrier=AA", "departure_time=09:30", "distance_miles=550", "weather_code=3"]


class Installation:
    """One folder with its data, on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
        ports = {service.port_variable: str(free_port()) for service in SERVICES if service.port}
        self.environment = {**inherited, **ports, "FORETELL_DATA_DIR": str(folder / "data")}

    def __call__(self, *arguments: str, code: int | None = 0, **environment: str) -> str:
        """Call `foretell`; returns what it said, complaints too when it is to fail. `code` None: however it ends."""
        called = subprocess.run(
            [*FORETELL, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert code in (called.returncode, None), called.stdout + called.stderr
        assert "Traceback" not in called.stderr
        return called.stdout + (called.stderr if code else "")

    def status(self) -> dict[str, dict[str, Any]]:
        """The processes by name."""
        return {each["name"]: each for each in json.loads(self("status", "--json", code=None))}

    def processes(self) -> list[str]:
        """Whatever runs for this installation, as the operating system sees it."""
        mark = f"FORETELL_ENGINE_DIR={self.folder / 'data'}".encode()
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    found.append((place / "cmdline").read_text())
            except OSError:
                continue
        return found


def wait_for(condition: Callable[[], bool]) -> None:
    # A start alone may take two minutes before it gives up.
    deadline = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < deadline
        # To ask the command line is most of a second's work, which those that are waited for could do.
        time.sleep(1)


@pytest.fixture
def foretell(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path)
    yield installation
    installation("down")


@pytest.fixture(scope="module")
def foretell_with_bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One that is up, with a bot whose Telegram is away: for several tests, since a start takes seconds."""
    installation = Installation(tmp_path_factory.mktemp("with-bot"))
    telegram = {"TELEGRAM_TOKEN": TELEGRAM_TOKEN, "TELEGRAM_API_URL": f"http://127.0.0.1:{free_port()}"}
    installation("up", "--detach", "--workers", "1", **telegram)
    yield installation
    installation("down")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_from_up_to_down(foretell: Installation) -> None:
    introduction = foretell("up", "--detach", "--workers", "2")
    assert f"http://127.0.0.1:{foretell.environment['FORETELL_APP_PORT']}/docs" in introduction
    again = foretell("up", "--detach")
    assert "running already" in again
    assert "settings" not in again
    assert "settings yet: TELEGRAM_TOKEN. Stop it" in foretell("up", "--detach", TELEGRAM_TOKEN="12:another")

    before = foretell.status()
    assert before.keys() >= {"app", "dispatcher", "worker-1", "worker-2"}
    assert all(each["healthy"] for each in before.values())
    assert "off (no TELEGRAM_TOKEN)" in foretell("status")
    assert re.search(r"^probability: 0\.\d+$", foretell("predict", "flight-delay", *FLIGHT), re.MULTILINE)
    workers = {json.loads(foretell("predict", "flight-delay", *FLIGHT, "--json"))["worker_id"] for _ in range(2)}
    assert workers <= {before["worker-1"]["instance"], before["worker-2"]["instance"]}

    # A killed worker comes back by itself; meanwhile nobody else is touched.
    os.kill(before["worker-1"]["pid"], signal.SIGKILL)
    wait_for(
        lambda: (worker := foretell.status()["worker-1"])["healthy"] and worker["pid"] != before["worker-1"]["pid"]
    )
    assert "runs with 3 workers" in foretell("up", "--detach", "--workers", "3")
    assert "runs with 1 worker now" in foretell("scale", "1")
    after = foretell.status()
    assert after.keys() == before.keys() - {"worker-2"}
    assert {name: after[name]["pid"] for name in ("app", "dispatcher")} == {
        name: before[name]["pid"] for name in ("app", "dispatcher")
    }
    foretell("predict", "flight-delay", *FLIGHT)
    only_what_services_can_load_stays(foretell)

    # The same database as the engine's, from another folder's point of view too.
    assert "test" in foretell("users", "list")
    assert "All is right" in foretell("audit")
    assert "service_listening" in foretell("logs", "ml-worker")

    assert foretell("down") == "Foretell is down.\n"
    assert foretell.processes() == []
    assert not (foretell.folder / "data" / "run").exists()


def test_whatever_stands_still_is_replaced_and_nothing_is_lost(foretell: Installation) -> None:
    foretell("up", "--detach", "--workers", "1", FORETELL_STANDSTILL_LIMIT_S="6")
    before = foretell.status()
    app = f"http://127.0.0.1:{foretell.environment['FORETELL_APP_PORT']}"
    with httpx.Client(base_url=app, trust_env=False, timeout=30) as client:
        token = client.post("/token", data={"username": "test", "password": "test"}).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        os.kill(before["worker-1"]["pid"], signal.SIGSTOP)
        flight = {"carrier": "AA", "departure_time": "09:30", "distance_miles": 550, "weather_code": 3}
        order = {"model": "flight-delay", "input": flight}
        ids = [client.post("/predictions/predict", json=order).json()["id"] for _ in range(3)]
        for name in before:
            os.kill(before[name]["pid"], signal.SIGSTOP)

        def replaced() -> bool:
            after = foretell.status()
            return all(each["healthy"] and each["pid"] != before[name]["pid"] for name, each in after.items())

        wait_for(replaced)
        wait_for(lambda: all(client.get(f"/predictions/{each}").json()["status"] == "succeeded" for each in ids))
        assert client.get("/balance").json()["held"] == 0
    assert "All is right" in foretell("audit")
    said = (foretell.folder / "data" / "logs" / "worker-1.log").read_text()
    assert "process_stands_still" in said
    assert '"standstills":' in said
    # What replaces it says how it ended, and so does the supervisor.
    assert '"process_ended"' in said
    assert '"ended_by":"SIGKILL","in_hand":"nothing"' in said.replace(": ", ":").replace(", ", ",")


#: Loads where HOME_OF_CLASS is set, which is so for the command line of the test, and not for its services.
FASTIDIOUS = """
import os
from pydantic import BaseModel

class Row(BaseModel):
    x: int

class Fastidious:
    def load(self, folder):
        self.factor = {factor}

    def predict(self, batch: list[Row]) -> list[Row]:
        return [Row(x=row.x * self.factor) for row in batch]
"""


def only_what_services_can_load_stays(foretell: Installation) -> None:
    """A package that is fine where it is checked, and nowhere else."""
    here = {"HOME_OF_CLASS": "7"}
    (foretell.folder / "fastidious.py").write_text(FASTIDIOUS.format(factor='int(os.environ["HOME_OF_CLASS"])'))
    (foretell.folder / "good.py").write_text(FASTIDIOUS.format(factor="2"))
    foretell("models", "new", "fastidious.py", **here)
    foretell("models", "new", "good.py", "--name", "fastidious", "--output", "good")
    installed = foretell.folder / "data" / "models" / "fastidious"

    said = foretell("models", "add", "fastidious", code=1, **here)
    assert "fastidious is ready" not in said
    assert "worker-1" in said
    assert "can't load fastidious 1.0.0: " in said
    assert "KeyError: 'HOME_OF_CLASS'" in said
    assert "So fastidious 1.0.0 was taken out." in said
    assert not installed.exists()

    foretell("models", "add", "good")
    said = foretell("models", "add", "fastidious", "--replace", code=1, **here)
    assert "So fastidious 1.0.0 is what it was before." in said
    assert json.loads(foretell("predict", "fastidious", "x=4", "--json"))["output"] == {"x": 8}

    # By hand it can be put there all the same; then reload says so.
    (installed / "1.0.0" / "model.py").write_text((foretell.folder / "fastidious" / "model.py").read_text())
    said = foretell("models", "reload", code=1, **here)
    assert "KeyError: 'HOME_OF_CLASS'" in said
    assert "What can be loaded is served." in said
    foretell("models", "remove", "fastidious")
    assert "Every service that runs here has read it." in foretell("models", "reload")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_in_the_foreground_leaves_nothing_behind(foretell: Installation, number: signal.Signals) -> None:
    output = foretell.folder / "output"
    with output.open("w") as stream:
        child = subprocess.Popen(
            [*FORETELL, "up", "--workers", "1"],
            cwd=foretell.folder,
            env=foretell.environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "Ctrl-C stops everything." in output.read_text())
        os.killpg(child.pid, number)
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
    said = output.read_text()
    assert re.search(r"^app +\| .* service_listening", said, re.MULTILINE)
    assert "Foretell is down." in said
    assert "Traceback" not in said
    assert foretell.processes() == []


def test_a_bot_whose_telegram_is_away_holds_up_nothing(foretell_with_bot: Installation) -> None:
    foretell = foretell_with_bot
    status = foretell.status()
    assert {name for name, each in status.items() if not each["healthy"]} == {"bot"}
    assert "Telegram does not answer" in status["bot"]["reason"]
    log = (foretell.folder / "data" / "logs" / "bot.log").read_text()
    assert log.count("telegram_in_trouble") == 1
    assert TELEGRAM_TOKEN not in log

    # App and bot know one another by the secret that was made here.
    secret = (foretell.folder / "data" / "bot_secret").read_text().strip()
    app = f"http://127.0.0.1:{foretell.environment['FORETELL_APP_PORT']}"
    body = {"chat_id": 1, "name": "Ada"}
    proof = {"Authorization": f"Bearer {secret}"}
    assert httpx.post(f"{app}/telegram/accounts", json=body, headers=proof, trust_env=False).status_code == 201
    assert httpx.post(f"{app}/telegram/accounts", json=body, trust_env=False).status_code == 404
    assert re.search(r"^probability: 0\.\d+$", foretell("predict", "flight-delay", *FLIGHT), re.MULTILINE)


def test_a_measurement_leaves_one_closed_account(foretell_with_bot: Installation) -> None:
    foretell = foretell_with_bot
    for _ in range(2):
        assert "They are no revenue" in foretell("bench", "--seconds", "1", "--clients", "2")
    # However often it is measured, by one account, which is closed and keeps no credits.
    (measuring,) = [user for user in json.loads(foretell("users", "list", "--json")) if "bench" in user["username"]]
    assert (measuring["active"], measuring["available"], measuring["held"]) == (False, 0, 0)
    assert "All is right" in foretell("audit")

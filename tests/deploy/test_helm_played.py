"""The chart's pods as they are rendered, run; and killed, one service after the other, while predictions come."""

import json
from collections.abc import Iterator
from subprocess import PIPE, Popen
from typing import Any

import pytest
from tests.deploy.chart import of_kind, render
from tests.deploy.played import Played, docker_environment, eventually, play_the_chart

#: Images are built and carried, and what is killed is started anew.
pytestmark = pytest.mark.timeout(3600)
COMPONENTS = (
    "app",
    "dispatcher",
    "ml-worker",
    "ml-worker-gpu",
    "model-service",
    "preprocessing-service",
    "monitoring-service",
)
#: Sends predictions until a line comes, then waits for the end of all of them. Each has a key of its own, and whatever
#: is not answered with 202 is sent again with the same: so what is accepted is accepted once.
_LOAD = """
import json, select, sys, time, urllib.error, urllib.request, uuid
url, token, seconds = sys.argv[1], "", 240
def ask(path, body=None, form=None, key=None):
    data = json.dumps(body).encode() if body is not None else form
    headers = {"Content-Type": "application/json" if body is not None else "application/x-www-form-urlencoded"}
    if token: headers["Authorization"] = "Bearer " + token
    if key: headers["Idempotency-Key"] = key
    request = urllib.request.Request(url + path, data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, json.load(answer)
def log_in():
    global token
    token = ask("/token", form=b"username=ada&password=a-long-password-of-ada")[1]["access_token"]
log_in()
accepted, again = [], 0
features = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
key = uuid.uuid4().hex
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    try:
        status, said = ask("/predictions/predict", {"model": "flight-delay", "features": features}, key=key)
        accepted.append(said["id"])
        key = uuid.uuid4().hex
    except urllib.error.HTTPError as error:
        again += 1
        if error.code == 401: log_in()
        elif error.code not in (409, 429, 503): sys.exit(f"{error.code} {error.read()[:300]}")
        time.sleep(0.2)
    except OSError:
        again += 1
        time.sleep(0.2)
ends, until = {}, time.monotonic() + seconds
for prediction in accepted:
    while True:
        try:
            said = ask("/predictions/" + prediction)[1]
            if said["status"] != "queued": break
        except (OSError, urllib.error.HTTPError) as error:
            if getattr(error, "code", 0) == 401: log_in()
        if time.monotonic() > until: sys.exit(f"{prediction} has not ended")
        time.sleep(0.2)
    ends[said["status"]] = ends.get(said["status"], 0) + 1
print(json.dumps({"accepted": len(accepted), "again": again, "ends": ends}))
"""

_FLIGHT = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
_ADD = "echo a-long-password-of-ada | foretell users add ada --password-stdin --credits 1000000"
#: One prediction, awaited.
_ASK = """
import json, sys, urllib.request
url, model, features = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def ask(path, data, headers):
    with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=60) as answer:
        return json.load(answer)
token = ask("/token", b"username=ada&password=a-long-password-of-ada", {})["access_token"]
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json", "Prefer": "wait=50"}
print(json.dumps(ask("/predictions/predict", json.dumps({"model": model, "features": features}).encode(), headers)))
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with play_the_chart(tmp_path_factory.mktemp("models")) as played:
        played.inside("app", "sh", "-c", _ADD)
        yield played


def test_pods_run_as_they_are_rendered(played: Played) -> None:
    for component in COMPONENTS:
        known = played.inspect(played.pod(component))
        assert known["HostConfig"]["ReadonlyRootfs"] is True
        assert known["Config"]["User"] == "10001:10001"
        assert known["EffectiveCaps"] in (None, [])
        for path in ("/health/live", "/health/ready", "/health"):
            status, body = played.ask(component, path)
            assert (status, path) == (200, path), body
        # In production whoever reads metrics shows the token.
        assert played.ask(component, "/metrics")[0] == 401
        assert "tcp://" not in played.inside(component, "sh", "-c", "env | grep -v URL")


def test_helm_test_passes(played: Played) -> None:
    played.play([of_kind(render({"image": {"registry": "localhost", "tag": _tag(played)}}), "Pod")["foretell-test"]])
    eventually(lambda: played.inspect("foretell-test-ready")["State"]["Status"] == "exited", "helm test", 600)
    assert played.inspect("foretell-test-ready")["State"]["ExitCode"] == 0, played.run(
        "podman", "logs", "foretell-test-ready"
    )


def _tag(played: Played) -> str:
    return str(played.inspect(played.pod("app"))["ImageName"]).rpartition(":")[2]


@pytest.mark.parametrize(
    ("model", "features", "worker"),
    [
        ("doubler", {"x": 21}, "foretell-ml-worker-gpu-pod"),
        (
            "flight-delay",
            {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0},
            "foretell-ml-worker-pod",
        ),
    ],
)
def test_a_pool_runs_its_own_models_and_no_others(
    played: Played, model: str, features: dict[str, Any], worker: str
) -> None:
    """The package comes from an image of models, and its manifest says queue = "gpu"."""
    said = json.loads(played.inside("app", "python3", "-c", _ASK, "http://127.0.0.1:8000", model, json.dumps(features)))
    assert (said["status"], said["worker_id"]) == ("succeeded", worker)
    if model == "doubler":
        assert said["output"] == {"y": 42.0}


def test_whatever_is_killed_nothing_accepted_is_lost(played: Played) -> None:
    loading = [
        "docker", "exec", "-i", played.container, "python3", "-c", _LOAD, f"http://{played.address('app')}:8000",
    ]  # fmt: skip
    with Popen(loading, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, env=docker_environment()) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        assert load.stderr is not None
        assert load.stdout.readline() == "begun\n", load.stderr.read()
        for component in COMPONENTS:
            before = played.kill(component)
            eventually(
                lambda component=component, before=before: (  # type: ignore[misc]
                    played.inspect(played.pod(component))["State"]["Pid"] not in (0, before)
                ),
                f"{component} runs again",
                600,
            )
            played.until(component)
            assert load.poll() is None, load.stderr.read()
        said, errors = load.communicate("\n", timeout=600)
    assert load.returncode == 0, errors
    told = json.loads(said)
    assert told["accepted"] > 50
    assert told["ends"] == {"succeeded": told["accepted"]}
    assert "All is right" in played.inside("app", "foretell", "audit")

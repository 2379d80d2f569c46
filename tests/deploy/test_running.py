"""docker-compose.yaml built, run, used, scaled, killed, restarted. Needs an engine (tests/containers.py)."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from tests.containers import SERVICES, Stack, running_stack
from tests.deploy.loaded import callers, settled
from tests.e2e.test_bot import ENGLISH, converse
from tests.telegram.people import Person
from tests.telegram.server import telegram_server

pytestmark = pytest.mark.timeout(1800)

FLIGHT = {"carrier": "AA", "departure_time": "17:45", "distance_miles": 1389, "weather_code": 4}
ASKED = {"model": "flight-delay", "input": FLIGHT}
#: What is restarted while somebody asks.
ROLLING = ("app", "dispatcher", "ml-worker", "monitoring-service", "model-service", "preprocessing-service")
GIB = 1024**3


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    yield from running_stack({})


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        yield client


def test_the_first_day_of_a_user(stack: Stack, client: httpx.Client) -> None:
    person = {"username": "ada", "password": "a long one of my own"}
    assert client.post("/users", json=person).status_code == 201
    token = stack.token("ada", person["password"])
    client.headers["Authorization"] = f"Bearer {token}"
    assert client.get("/balance").json()["available"] == 100
    made = client.post("/predictions/predict", json=ASKED, headers={"Prefer": "wait=30"})
    assert made.status_code == 200, made.text
    assert made.json()["status"] == "succeeded"
    assert made.json()["worker_id"].startswith("ml_worker-")
    text = client.post(
        "/predictions/predict",
        json={"model": "sentiment", "input": {"text": "What a lovely flight!"}},
        headers={"Prefer": "wait=30"},
    )
    assert text.json()["output"]["label"] == "positive", text.text
    assert client.get("/balance").json()["available"] == 97
    assert [each["id"] for each in client.get("/predictions").json()["items"]] == [text.json()["id"], made.json()["id"]]
    kinds = Counter(each["kind"] for each in client.get("/transactions").json()["items"])
    assert kinds["hold"] == kinds["capture"] == 2


def test_what_else_is_behind_the_door_and_beside_it(stack: Stack, client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 200
    for path in ("/model/health", "/preprocessing/health"):
        assert client.get(path).json()["status"] == "healthy", path
    features = httpx.post(f"{stack.port('PREPROCESSING')}/preprocess", json=FLIGHT, timeout=30).json()
    answer = httpx.post(f"{stack.port('MODEL')}/predict", json=features, timeout=30)
    assert answer.json()["prediction"] in (0, 1)
    # Operators only, at the door; on this machine's loopback, in development, whoever is here.
    assert client.get("/monitoring/reports/logs").status_code in (401, 403, 404)
    logs = httpx.get(f"{stack.port('MONITORING')}/reports/logs", params={"limit": 5}, timeout=30)
    assert logs.status_code == 200
    assert logs.json()


def test_guest_looks_at_rabbitmq_and_touches_nothing(stack: Stack) -> None:
    with httpx.Client(base_url=stack.port("RABBITMQ_MANAGEMENT"), auth=("guest", "guest"), timeout=30) as guest:
        assert guest.get("/api/overview").status_code == 200
        assert guest.delete("/api/queues/%2F/ml_tasks").status_code in (401, 403)
        assert guest.put("/api/users/somebody", json={"password": "x", "tags": ""}).status_code in (401, 403)
    listing = ("rabbitmqctl", "-q", "list_connections", "user", "--formatter", "json")
    users = json.loads(stack.compose("exec", "-T", "rabbitmq", *listing))
    assert {each["user"] for each in users} == {"app", "dispatcher", "worker"}


def test_database_and_broker_are_nobody_elses(stack: Stack) -> None:
    for name in ("postgres", "app", "dispatcher", "ml-worker"):
        for container in stack.containers(name):
            assert not any((container["NetworkSettings"]["Ports"] or {}).values())
    # The monitoring service's user can't even connect to the product's tables.
    url = "cat /run/secrets/FORETELL_MONITORING_DATABASE_URL | sed s,/foretell_monitoring$,/foretell,"
    refused = stack.compose(
        "exec", "-T", "monitoring-service", "sh", "-c", f'FORETELL_MONITORING_DATABASE_URL=$({url}) '
        "/opt/foretell/bin/python3 -c \"import asyncio, asyncpg, os; "
        "asyncio.run(asyncpg.connect(os.environ['FORETELL_MONITORING_DATABASE_URL']))\" 2>&1 || true",
    )  # fmt: skip
    assert "permission denied for database" in refused


def test_what_containers_may_do_and_take(stack: Stack) -> None:
    for container in stack.containers("app", "dispatcher", "ml-worker", "model-service", "monitoring-service"):
        assert container["HostConfig"]["ReadonlyRootfs"]
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
        assert container["Config"]["User"] == "10001:10001"
        assert container["HostConfig"]["Memory"] > 0
        secrets = [value for value in container["Config"]["Env"] if "postgresql://" in value or "amqp://" in value]
        assert secrets == []
    said = stack.run("docker", "stats", "--no-stream", "--format", "{{json .}}")
    names = {each["Name"].removeprefix("/") for each in stack.containers()}
    taken = [json.loads(line) for line in said.splitlines()]
    total = sum(_bytes(each["MemUsage"].split("/")[0]) for each in taken if each["Name"] in names)
    assert 0 < total < 1.5 * GIB


def _bytes(text: str) -> float:
    number, unit = text.strip().rstrip("iB"), text.strip()
    factor = {"KiB": 1024, "MiB": 1024**2, "GiB": GIB}.get(unit[-3:], 1)
    return float(number.rstrip("KMG")) * factor


def test_started_again_with_nothing_changed_no_service_is_touched(stack: Stack) -> None:
    """Only what runs once, `secrets` and `migrate`, runs again: its end restarts nobody."""

    def runs() -> dict[str, str]:
        return {each["Id"]: each["State"]["StartedAt"] for each in stack.containers(*SERVICES)}

    def made() -> str:
        (secrets,) = stack.containers("secrets")
        return str(secrets["State"]["StartedAt"])

    before, made_before = runs(), made()
    stack.compose("up", "--detach")
    assert made() != made_before
    assert runs() == before


async def test_the_bot_talks_from_its_container(stack: Stack) -> None:
    """Telegram is the tests' server, at this machine's address in the network of the containers."""
    (app,) = stack.containers("app")
    (gateway,) = {each["Gateway"] for each in app["NetworkSettings"]["Networks"].values() if each["Gateway"]}
    async with telegram_server(host=gateway) as telegram:
        settings = {"TELEGRAM_TOKEN": telegram.token, "TELEGRAM_API_URL": telegram.url}
        try:
            await asyncio.to_thread(partial(stack.compose, "up", "--detach", **settings))
            await asyncio.to_thread(stack.wait_until_healthy, "app", "bot", "nginx")
            person = Person(telegram, 1)
            await converse(person, ENGLISH)
            # What it knows is on its volume.
            await asyncio.to_thread(stack.kill, "bot")
            await asyncio.to_thread(stack.wait_until_healthy, "bot")
            last = telegram.posts_in(person.id)[-1]
            await person.types("/balance")
            await person.sees_new(ENGLISH["left"], after=last)
        finally:
            await asyncio.to_thread(stack.compose, "up", "--detach", "--remove-orphans")
    stack.wait_until_healthy()
    assert stack.audit() == []


async def test_five_workers_all_work(stack: Stack) -> None:
    done = stack.run(sys.executable, "-m", "foretell.cli", "scale", "5", "--engine", "docker")
    assert "Foretell runs with 5 workers now." in done
    stack.wait_until_healthy("ml-worker")
    token = stack.add_user("scaler", 100_000)
    named: set[str] = set()
    async with httpx.AsyncClient(
        base_url=stack.url, headers={"Authorization": f"Bearer {token}", "Prefer": "wait=30"}, timeout=60
    ) as client:
        for _ in range(20):
            answers = await asyncio.gather(*(client.post("/predictions/predict", json=ASKED) for _ in range(25)))
            named |= {answer.json()["worker_id"] for answer in answers if answer.status_code == 200}
            if len(named) == 5:
                break
    assert len(named) == 5
    # Again without a number: they stay.
    assert "with 5 workers" in stack.run(sys.executable, "-m", "foretell.cli", "up", "--engine", "docker")
    rows = json.loads(stack.run(sys.executable, "-m", "foretell.cli", "status", "--json"))
    assert Counter(row["service"] for row in rows)["ml-worker"] == 5
    assert all(row["healthy"] for row in rows)
    stack.run(sys.executable, "-m", "foretell.cli", "scale", "3")
    assert len(stack.containers("ml-worker")) == 3


async def test_every_part_killed_in_turn_under_load(stack: Stack) -> None:
    asked = callers(stack, "killer")
    async with asked.calling(2, think_s=0.5):
        for service in SERVICES:
            await asked.progress(3, timeout_s=300)
            await asyncio.to_thread(stack.kill, service)
            # What was killed comes back by itself, and everybody goes on with it.
            await asyncio.sleep(1)
            await asyncio.to_thread(stack.wait_until_healthy, service)
            await asked.progress(3, timeout_s=300)
    assert asked.ambiguous == []
    # A container may take longer to start than a client waits; that is the machine's doing, and no wrong answer.
    assert [each for each in asked.server_errors if not each.startswith("no answer for")] == []
    assert await asyncio.to_thread(settled, stack, asked) == Counter(succeeded=len(asked.accepted))
    assert await asyncio.to_thread(stack.audit) == []


async def test_a_rolling_restart_drops_no_request(stack: Stack) -> None:
    stack.compose("up", "--detach", "--no-recreate", "--no-deps", "--scale", "app=2", "app")
    stack.wait_until_healthy("app")
    # nginx asks for the app's addresses every two seconds.
    await asyncio.sleep(5)
    asked = callers(stack, "roller")
    async with asked.calling(4, think_s=0.05):
        await asked.progress(5)
        for service in ROLLING:
            for container in stack.containers(service):
                await asyncio.to_thread(stack.run, "docker", "restart", container["Id"])
                await asyncio.to_thread(stack.wait_until_healthy, service)
                await asyncio.sleep(3)
        await asked.progress(5)
    assert set(asked.answers) <= {200, 202}, asked.answers
    assert await asyncio.to_thread(settled, stack, asked) == Counter(succeeded=len(asked.accepted))
    assert await asyncio.to_thread(stack.audit) == []


def test_down_and_up_keep_the_data(stack: Stack, client: httpx.Client) -> None:
    token = stack.add_user("keeper", 50)
    headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=30"}
    made = client.post("/predictions/predict", json=ASKED, headers=headers)
    assert made.status_code == 200, made.text
    assert "Foretell is down." in stack.run(sys.executable, "-m", "foretell.cli", "down")
    assert stack.containers() == []
    stack.compose("up", "--detach")
    stack.wait_until_healthy()
    # The same key signs tokens, the same passwords open the database.
    again = client.get("/predictions", headers=headers).json()["items"]
    assert [each["id"] for each in again] == [made.json()["id"]]
    assert client.get("/balance", headers=headers).json()["available"] == 49
    assert stack.audit() == []


def test_production_has_nothing_to_try_with(stack: Stack, client: httpx.Client) -> None:
    stack.foretell("users", "close", "test")
    stack.compose("up", "--detach", FORETELL_ENVIRONMENT="production")
    stack.wait_until_healthy()
    assert client.post("/token", data={"username": "test", "password": "test"}).status_code == 401
    assert httpx.get(f"{stack.port('MONITORING')}/reports/logs", timeout=30).status_code == 401
    guest = httpx.get(f"{stack.port('RABBITMQ_MANAGEMENT')}/api/overview", auth=("guest", "guest"), timeout=30)
    assert guest.status_code == 401
    token = stack.compose("exec", "-T", "monitoring-service", "cat", "/run/secrets/FORETELL_MONITORING_TOKEN").strip()
    shown = httpx.get(
        f"{stack.port('MONITORING')}/reports/logs", headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    assert shown.status_code == 200
    bad = stack.compose(
        "run", "--rm", "-T", "secrets", check=False,
        FORETELL_ENVIRONMENT="production", FORETELL_SECRET_KEY="change-me-change-me-change-me-change-me",
    )  # fmt: skip
    assert "Made" not in bad
    assert "All secrets" not in bad

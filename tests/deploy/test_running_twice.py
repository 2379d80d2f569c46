"""docker-compose.ha.yaml run: any one container is killed under load. Needs an engine (tests/containers.py)."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.containers import SERVICES, Stack, running_stack, wait_until
from tests.deploy.loaded import callers, settled

from foretell.contracts import queues

pytestmark = pytest.mark.timeout(1800)

NODES = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")
SERVERS = ("postgres", "postgres-2")
#: What there is only one of in docker-compose.yaml, and what lets it agree.
TWICE = (*NODES, *SERVERS, "etcd-1", "etcd-2", "etcd-3")


#: As docs/high-availability.md says it.
POOLED = {
    "COMPOSE_PROFILES": "pgbouncer",
    "FORETELL_POSTGRES_HOSTS": "pgbouncer:6432,pgbouncer-2:6432",
    "FORETELL_DATABASE_POOLER": "transaction",
}


@pytest.fixture(scope="module", params=[{}, POOLED], ids=["direct", "PgBouncer"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    settings = {"COMPOSE_FILE": "docker-compose.yaml:docker-compose.ha.yaml", **request.param}
    yield from running_stack(settings, tuple({*SERVICES, *TWICE}))


def members(stack: Stack) -> dict[str, str]:
    """What Patroni says each server is."""
    for server in SERVERS:
        said = stack.compose("exec", "-T", server, "patronictl", "list", "--format", "json", check=False)
        if said.startswith("["):
            found = json.loads(said)
            return {each["Member"]: each["Role"] for each in found if each["State"] in ("running", "streaming")}
    return {}


def leader(stack: Stack) -> str:
    """The server that takes writes."""
    return next(name for name, role in members(stack).items() if role == "Leader")


def wait_until_twice(stack: Stack) -> None:
    """Wait until what is committed is on both servers, and every queue is on three nodes that run."""
    wait_until(lambda: sorted(members(stack).values()) == ["Leader", "Sync Standby"], "a synchronous standby", 300.0)

    def on_three_nodes() -> bool:
        asked = ("rabbitmqctl", "-q", "list_queues", "name", "type", "online", "--formatter", "json")
        for node in NODES:
            said = stack.compose("exec", "-T", node, *asked, check=False)
            if said.strip().startswith("["):
                found = {each["name"]: each for each in json.loads(said) if each["type"] == "quorum"}
                online = {name: len(each["online"]) for name, each in found.items()}
                return queues.TASKS in online and set(online.values()) == {3}
        return False

    wait_until(on_three_nodes, "queues on three nodes", 300.0)


async def test_any_one_of_them_dies_and_stays_away(stack: Stack) -> None:
    await asyncio.to_thread(wait_until_twice, stack)
    assert len(stack.containers("app")) == len(stack.containers("dispatcher")) == 2
    asked = callers(stack, "twice")
    async with asked.calling(2, think_s=0.2):
        for name in ("etcd-1", *NODES, "standby", "leader", "leader"):
            await asked.progress(5, timeout_s=300)
            primary = await asyncio.to_thread(leader, stack)
            standby = next(each for each in SERVERS if each != primary)
            service = {"leader": primary, "standby": standby}.get(name, name)
            await asyncio.to_thread(stack.compose, "kill", service)
            # Without it, predictions are accepted and succeed.
            await asked.progress(5, timeout_s=300)
            done = await asyncio.to_thread(settled, stack, asked)
            assert set(done) == {"succeeded"}, service
            await asyncio.to_thread(stack.compose, "start", service)
            await asyncio.to_thread(stack.wait_until_healthy, service)
            await asyncio.to_thread(wait_until_twice, stack)
    assert asked.ambiguous == []
    assert asked.server_errors == []
    assert await asyncio.to_thread(settled, stack, asked) == Counter(succeeded=len(asked.accepted))
    assert await asyncio.to_thread(stack.audit) == []
    assert "queue_rebuilt" not in stack.compose("logs", "app", "dispatcher", "ml-worker")


async def test_down_and_up_keep_the_data(stack: Stack) -> None:
    token = stack.add_user("keeper", 50)
    stack.compose("down")
    stack.compose("up", "--detach")
    stack.wait_until_healthy(*SERVICES, *TWICE)
    await asyncio.to_thread(wait_until_twice, stack)
    assert token
    assert stack.audit() == []

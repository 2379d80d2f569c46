"""Reading bodies within bounds, and the operator's routes."""

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.kit.asgi import BodyTooLarge, ClientGone, Operations, Receive, read_body
from foretell.kit.errors import Unavailable


def _receiving(messages: Iterable[dict[str, Any]]) -> Receive:
    """A client that sends `messages` and would hang up a reader who asks for more."""
    remaining = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(remaining)

    return receive


def _chunks(*parts: bytes) -> list[dict[str, Any]]:
    return [
        {"type": "http.request", "body": part, "more_body": place < len(parts) - 1} for place, part in enumerate(parts)
    ]


_GONE: dict[str, Any] = {"type": "http.disconnect"}


@pytest.mark.parametrize("parts", [[b""], [b"12345"], [b"1", b"2345"], [b"", b"12345", b""], [b"1"] * 5 + [b""]])
async def test_a_body_within_the_bound_is_whole(parts: list[bytes]) -> None:
    assert await read_body(_receiving(_chunks(*parts)), 5) == b"".join(parts)


@pytest.mark.parametrize("parts", [[b"123456"], [b"12345", b"6"], [b"1234", b"", b"56", b"7"]])
async def test_a_larger_body_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(BodyTooLarge, match="larger than the 5 bytes"):
        await read_body(_receiving(_chunks(*parts)), 5)


async def test_an_endless_body_is_refused_as_soon_as_it_is_too_large() -> None:
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    with pytest.raises(BodyTooLarge):
        await read_body(receive, 1000)
    assert asked == 11


@pytest.mark.parametrize("before", [[], _chunks(b"1", b"")[:1], _chunks(b"1", b"2", b"")[:2]])
async def test_a_client_that_is_gone_is_no_body(before: list[dict[str, Any]]) -> None:
    with pytest.raises(ClientGone):
        await read_body(_receiving([*before, _GONE]), 5)


async def test_fields_that_a_server_leaves_out_have_their_defaults() -> None:
    assert await read_body(_receiving([{"type": "http.request"}]), 5) == b""


@given(parts=st.lists(st.binary(max_size=6), min_size=1, max_size=6), bound=st.integers(0, 20))
async def test_any_body_is_whole_or_refused(parts: list[bytes], bound: int) -> None:
    whole = b"".join(parts)
    try:
        assert await read_body(_receiving(_chunks(*parts)), bound) == whole
    except BodyTooLarge:
        assert len(whole) > bound
    else:
        assert len(whole) <= bound


class Parts:
    """What a service leans on; a test takes it away."""

    def __init__(self) -> None:
        self.failing: dict[str, Exception] = {}
        self.alive = True
        #: Set while the database answers; and how often it was asked.
        self.database_answers = asyncio.Event()
        self.database_answers.set()
        self.asked = 0

    async def check_broker(self) -> None:
        if "broker" in self.failing:
            raise self.failing["broker"]

    async def check_database(self) -> None:
        self.asked += 1
        await self.database_answers.wait()
        if "database" in self.failing:
            raise self.failing["database"]


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
async def client(parts: Parts) -> Any:
    operations = Operations(
        "model_service",
        instance="model-1",
        version="1.2.3",
        checks={"database": parts.check_database, "broker": parts.check_broker},
        needed_to_serve=["database"],
        live=lambda: parts.alive,
        details=lambda: {"busy": False},
        check_timeout_s=0.5,
    )
    transport = httpx.ASGITransport(operations)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


_IDENTITY = {"service": "model_service", "instance": "model-1", "version": "1.2.3"}


async def test_a_healthy_service_says_who_it_is(client: httpx.AsyncClient) -> None:
    health = await client.get("/health")
    assert (health.status_code, health.json()) == (200, {"status": "healthy", "busy": False, **_IDENTITY})
    live = await client.get("/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "alive", **_IDENTITY})
    ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", **_IDENTITY})


async def test_a_part_that_is_silent_fails_and_is_not_asked_again_meanwhile(
    client: httpx.AsyncClient, parts: Parts
) -> None:
    parts.database_answers.clear()
    parts.failing = {"broker": ConnectionError()}
    for _ in range(3):
        async with asyncio.timeout(10):
            health = await client.get("/health")
        # The silence of one part hides nothing of another.
        assert health.json()["failing"] == {"broker": "ConnectionError", "database": "no answer within 0.5 s"}
    assert parts.asked == 1
    parts.database_answers.set()
    await asyncio.sleep(0)
    parts.failing = {}
    assert (await client.get("/health")).status_code == 200


async def test_without_a_part_that_is_needed_it_is_neither_healthy_nor_ready(
    client: httpx.AsyncClient, parts: Parts
) -> None:
    parts.failing = {"database": Unavailable(part="database"), "broker": ConnectionError()}
    health = await client.get("/health")
    assert health.status_code == 503
    assert health.json() == {
        "status": "unhealthy",
        "failing": {"broker": "ConnectionError", "database": Unavailable(part="database").message},
        "busy": False,
        **_IDENTITY,
    }
    ready = await client.get("/health/ready")
    assert (ready.status_code, list(ready.json()["failing"])) == (503, ["database"])
    # To start it anew would help nobody.
    assert (await client.get("/health/live")).status_code == 200


async def test_without_a_part_that_is_not_needed_it_still_serves(client: httpx.AsyncClient, parts: Parts) -> None:
    parts.failing = {"broker": Unavailable(part="broker")}
    assert (await client.get("/health")).status_code == 503
    assert (await client.get("/health/ready")).status_code == 200


async def test_a_stuck_service_says_so(client: httpx.AsyncClient, parts: Parts) -> None:
    parts.alive = False
    live = await client.get("/health/live")
    assert (live.status_code, live.json()["status"]) == (503, "stuck")
    assert (await client.get("/health")).json()["status"] == "unhealthy"


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert 'foretell_service_info{instance="model-1",service="model_service",version="1.2.3"} 1.0' in response.text


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics"])
async def test_nothing_can_be_posted_here(client: httpx.AsyncClient, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "BREW"):
        response = await client.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
        assert response.headers["content-type"] == "application/problem+json"
    assert (await client.head(path)).status_code == 200


async def test_other_paths_lead_nowhere(client: httpx.AsyncClient) -> None:
    response = await client.get("/health/of/somebody")
    assert (response.status_code, response.json()) == (404, {"detail": "There is nothing here."})


@pytest.mark.parametrize(
    ("path", "handled"),
    [("/health", True), ("/health/live", True), ("/metrics", True), ("/healthy", False), ("/", False), ("/m", False)],
)
def test_it_knows_its_paths(path: str, handled: bool) -> None:
    assert Operations("app", instance="app-1", version="1").handles(path) is handled


async def test_what_is_no_http_is_passed_over() -> None:
    async def fail(*_: Any) -> Any:
        raise AssertionError("nothing is received or sent")

    await Operations("app", instance="app-1", version="1")({"type": "lifespan"}, fail, fail)


@pytest.mark.parametrize(
    ("token", "shown", "status"),
    [
        (None, None, 200),
        ("k3Jq8ZpW0xYvT5nB", None, 401),
        ("k3Jq8ZpW0xYvT5nB", "Bearer k3Jq8ZpW0xYvT5nB", 200),
        ("k3Jq8ZpW0xYvT5nB", "Basic k3Jq8ZpW0xYvT5nB", 401),
        ("k3Jq8ZpW0xYvT5nB", "Bearer wrong", 401),
        ("", "Bearer ", 401),
        ("", None, 401),
    ],
)
async def test_metrics_are_for_whoever_shows_the_token(token: str | None, shown: str | None, status: int) -> None:
    operations = Operations("app", instance="app-1", version="1", metrics_token=token)
    headers = {} if shown is None else {"Authorization": shown}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(operations), base_url="http://app") as client:
        assert (await client.get("/metrics", headers=headers)).status_code == status
        assert (await client.get("/health/live")).status_code == 200

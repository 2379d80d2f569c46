"""Other people's web pages do not reach a service that asks for no password, under whichever name they come."""

import httpx
import pytest

from foretell.kit.asgi import Receive, Scope, Send, respond
from foretell.kit.own_pages import OwnPages


async def _open(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, 200, b"open", b"text/plain")


async def status_of(headers: dict[str, str], *, names_refused: bool) -> int:
    transport = httpx.ASGITransport(OwnPages(_open, names_refused=names_refused))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8003") as client:
        return (await client.post("/redrive", content=b"{}", headers=headers)).status_code


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:8003"},
        {"Host": "[::1]:8003"},
        {"Host": "10.1.2.3:8003"},
        {"Host": "foretell.localhost"},
        {"Host": "localhost:8003", "Origin": "http://localhost:8003"},
    ],
)
async def test_programs_and_our_own_pages_come_in(headers: dict[str, str]) -> None:
    assert await status_of(headers, names_refused=True) == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:3000", "https://[", "http://127.0.0.1:8003.evil.example"],
)
async def test_a_page_of_somebody_else_does_not(origin: str) -> None:
    for names_refused in (True, False):
        assert await status_of({"Origin": origin}, names_refused=names_refused) == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8003", "127.0.0.1.evil.example", "localhost.evil", "["])
async def test_a_name_that_somebody_points_at_us_does_not(host: str) -> None:
    assert await status_of({"Host": host}, names_refused=True) == 421
    assert await status_of({"Host": host, "Origin": f"http://{host}"}, names_refused=True) in (403, 421)
    assert await status_of({"Host": host}, names_refused=False) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("monitoring-service:8003", 200), ("Monitoring-Service", 200), ("monitoring-service.evil.example", 421)],
)
async def test_a_name_of_our_own_network_is_none_of_somebody_elses(host: str, status: int) -> None:
    own = OwnPages(_open, names_refused=True, own_names=["monitoring-service"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(own), base_url="http://127.0.0.1:8003") as client:
        assert (await client.get("/reports", headers={"Host": host})).status_code == status

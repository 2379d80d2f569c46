"""What can't be sent is refused at once, by both clients, with one error and without a secret."""

from typing import Any

import httpx
import pytest
from tests.unit.client.scripted import InOneWay, Script

from foretell.client import AsyncClient, Client, InvalidCall
from foretell.client.connection import settings_of

CLIENTS = pytest.mark.parametrize("kind", [Client, AsyncClient])
URL = "http://foretell.example"
QUEUED = {"id": "p1", "status": "queued"}


@CLIENTS
@pytest.mark.parametrize(
    "url",
    [
        *("", None, "localhost:28000", "foretell.example", "ftp://foretell.example", "http://", "http:///x"),
        *(
            "http://foretell.example:99999",
            "http://foretell.example:0",
            "http://foretell.example\n",
            "http://a..b",
            f"http://{'a' * 70}",
        ),
    ],
)
def test_an_address_that_is_none_is_refused_at_construction(kind: Any, url: Any) -> None:
    with pytest.raises(InvalidCall, match="the address must look like http://localhost:8000"):
        kind(url)


@CLIENTS
@pytest.mark.parametrize("url", ["http://localhost:8000", "https://a_b/foretell/", "http://[::1]:1", "http://ключ.рф"])
def test_an_address_of_a_server_is_taken(kind: Any, url: str) -> None:
    assert kind(url)


@CLIENTS
@pytest.mark.parametrize(
    "token", ["ключ", "", " \n", "ftl_secret\x00", "ftl_\r\nX: secret", "Bearer secret", b"secret"]
)
def test_a_token_that_is_none_is_refused_at_construction_and_never_shown(kind: Any, token: Any) -> None:
    for refused in (lambda: kind(URL, token=token), lambda: kind(URL).with_token(token)):
        with pytest.raises(InvalidCall, match="a token must be") as caught:
            refused()
        assert "secret" not in str(caught.value)
        assert "ключ" not in str(caught.value)


async def test_white_space_around_a_token_is_left_out() -> None:
    script = Script(*(httpx.Response(200, json={}) for _ in range(4)))
    transport = httpx.MockTransport(script.answer)

    async def fetch() -> str:
        return " ftl_4\r\n"

    for given in ("ftl_1\n", lambda: "\tftl_2\n"):
        with Client(URL, token=given, transport=transport) as client:
            client.balance()
    for token in ("ftl_3\n", fetch):
        async with AsyncClient(URL, token=token, transport=transport) as asynchronous:
            await asynchronous.balance()
    assert [each.headers["authorization"] for each in script.requests] == [f"Bearer ftl_{n}" for n in (1, 2, 3, 4)]
    assert settings_of(URL, "secret\n")["headers"] == {"Authorization": "Bearer secret"}


async def test_a_token_that_is_fetched_is_looked_at_too() -> None:
    async def fetch() -> str:
        return "ключ"

    script = Script()
    transport = httpx.MockTransport(script.answer)
    with Client(URL, token=lambda: "ключ", transport=transport) as client, pytest.raises(InvalidCall, match="a token"):
        client.balance()
    async with AsyncClient(URL, token=fetch, transport=transport) as asynchronous:
        with pytest.raises(InvalidCall, match="a token"):
            await asynchronous.balance()
    assert script.requests == []


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"input": {"x": float("nan")}}, "JSON"),
        ({"input": {"x": object()}}, "JSON"),
        ({"input": {"x": CIRCLE}}, "JSON"),
        ({"input": {"x": "\ud800"}}, "JSON"),
        ({"idempotency_key": "ключ"}, "Idempotency-Key must be printable ASCII"),
        ({"idempotency_key": "a\nb"}, "Idempotency-Key must be printable ASCII"),
        ({"idempotency_key": " a"}, "Idempotency-Key must be printable ASCII"),
        ({"idempotency_key": 5}, "Idempotency-Key must be printable ASCII"),
        ({"idempotency_key": ""}, "idempotency_key is empty"),
        ({"traceparent": "ключ"}, "traceparent must be printable ASCII"),
        ({"timeout_s": 0}, "timeout_s must be a number of seconds, above 0"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"timeout_s": None}, "timeout_s"),
        ({"timeout_s": "5"}, "timeout_s"),
    ],
)
async def test_an_argument_that_cannot_be_sent_is_one_error(call: InOneWay, given: dict[str, Any], said: str) -> None:
    script = Script()
    with pytest.raises(InvalidCall, match=said):
        await call(script, "predict", "m", **given)
    assert (script.requests, script.pauses_s) == ([], [])


async def test_times_have_bounds(call: InOneWay) -> None:
    script = Script(httpx.Response(202, json=QUEUED))
    with pytest.raises(InvalidCall, match="wait_s must be a number of seconds, at least 0"):
        await call(script, "submit", "m", {}, wait_s=-1)
    with pytest.raises(InvalidCall, match="timeout_s"):
        await call(script, "wait", "p1", timeout_s=0)
    with pytest.raises(InvalidCall, match="retry_for_s"):
        await call(script, "balance", retry_for_s=-1)
    assert script.requests == []
    assert await call(script, "submit", "m", {}, wait_s=float("inf")) == QUEUED
    assert script.requests[0].headers["prefer"] == "wait=60"


@pytest.mark.parametrize("name", ["", ".", "..", None, 5])
async def test_what_is_no_name_asks_for_no_other_path(call: InOneWay, name: Any) -> None:
    script = Script()
    for method in ("model", "prediction", "cancel", "revoke_api_key", "remove_webhook"):
        with pytest.raises(InvalidCall, match="is neither a name nor an id"):
            await call(script, method, name)
    assert script.requests == []


async def test_a_client_that_is_closed_asks_nothing() -> None:
    client, asynchronous = Client(URL), AsyncClient(URL)
    other = client.with_token("t")
    client.close()
    await asynchronous.close()
    for closed in (client, other):
        with pytest.raises(InvalidCall, match="the client is closed"):
            closed.balance()
    with pytest.raises(InvalidCall, match="the client is closed"):
        await asynchronous.balance()


@pytest.mark.parametrize("kind", [httpx.LocalProtocolError, httpx.UnsupportedProtocol])
async def test_a_fault_of_the_request_is_not_tried_again_nor_quoted(call: InOneWay, kind: Any) -> None:
    script = Script(kind("Illegal header value b'Bearer secret'"))
    with pytest.raises(InvalidCall, match="HTTP does not allow") as caught:
        await call(script, "balance")
    assert "secret" not in str(caught.value)
    assert (len(script.requests), script.pauses_s) == (1, [])
    assert caught.value.outcome == "not_done"

"""Posts to strangers, over real connections: pinned to what was checked, and nothing read but the status."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import pytest
from tests.webhook_receiver import ALLOWED, Receiver, receiving

from foretell.kit.addresses import Addresses, AddressRefused, read_url
from foretell.kit.outgoing import Answer, NotAnswered, Outgoing

_HEADERS = (("content-type", "application/json"), ("webhook-id", "1"))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def outgoing() -> AsyncIterator[Outgoing]:
    outgoing = Outgoing(Addresses([ipaddress.ip_network(ALLOWED)], needs_tls=False), timeout_s=5.0)
    yield outgoing
    outgoing.close()


async def _post(outgoing: Outgoing, url: str, body: bytes = b"{}") -> Answer:
    return await outgoing.post(read_url(url), _HEADERS, body)


async def test_a_post_arrives_whole(outgoing: Outgoing, receiver: Receiver) -> None:
    body = b'{"a": "' + b"x" * 500_000 + b'"}'
    assert await _post(outgoing, receiver.url + "?q=1", body) == Answer(204, None)
    (received,) = receiver.requests
    assert (received.path, received.body) == ("/hook?q=1", body)
    assert received.headers["webhook-id"] == "1"
    assert received.headers["host"] == receiver.url.split("/")[2]


async def test_a_connection_is_used_again(outgoing: Outgoing, receiver: Receiver) -> None:
    receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    for _ in range(5):
        await _post(outgoing, receiver.url)
    receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    for _ in range(5):
        await _post(outgoing, receiver.url)
    assert (receiver.connections, len(receiver.requests)) == (1, 10)


async def test_a_connection_that_was_closed_meanwhile_is_replaced(outgoing: Outgoing, receiver: Receiver) -> None:
    await _post(outgoing, receiver.url)
    answers: list[int | str] = ["reset", 204]
    receiver.answer = lambda _: answers.pop(0)
    assert (await _post(outgoing, receiver.url)).status == 204
    assert receiver.connections == 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(outgoing: Outgoing, receiver: Receiver, status: int) -> None:
    async with receiving() as other:
        head = f"HTTP/1.1 {status} Moved\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n"
        receiver.answer = lambda _: head.encode()
        assert (await _post(outgoing, receiver.url)).status == status
        assert other.connections == 0


async def test_how_long_it_asks_us_to_wait(outgoing: Outgoing, receiver: Receiver) -> None:
    for value, expected in (("120", 120.0), ("-1", None), ("soon", None), ("9" * 30, None)):
        head = f"HTTP/1.1 429 Slow\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n"
        receiver.answer = lambda _, head=head: head.encode()  # type: ignore[misc]
        assert await _post(outgoing, receiver.url) == Answer(429, expected)


async def test_a_long_answer_is_cut_off(outgoing: Outgoing, receiver: Receiver) -> None:
    receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 5_000_000
    assert (await _post(outgoing, receiver.url)).status == 200
    receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\n" + b"X-More: " + b"x" * 500_000 + b"\r\n\r\n"
    with pytest.raises(NotAnswered, match="malformed"):
        await _post(outgoing, receiver.url)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
async def test_answers_of_other_kinds(outgoing: Outgoing, receiver: Receiver, answer: bytes) -> None:
    receiver.answer = lambda _: answer
    assert (await _post(outgoing, receiver.url)).status in (200, 204)
    receiver.answer = lambda _: 204
    assert (await _post(outgoing, receiver.url)).status == 204


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("reset", "reset"), (b"SSH-2.0-OpenSSH_9\r\n", "malformed"), (b"\x15\x03\x01\x00\x02\x02", "malformed")],
)
async def test_what_is_no_answer(outgoing: Outgoing, receiver: Receiver, answer: str | bytes, reason: str) -> None:
    receiver.answer = lambda _: answer
    with pytest.raises(NotAnswered, match=reason):
        await _post(outgoing, receiver.url)


async def test_a_receiver_that_hangs_is_given_up(receiver: Receiver) -> None:
    outgoing = Outgoing(Addresses([ipaddress.ip_network(ALLOWED)], needs_tls=False), timeout_s=0.2)
    receiver.answer = lambda _: "hang"
    with pytest.raises(NotAnswered, match="timeout"):
        await _post(outgoing, receiver.url)
    outgoing.close()


async def test_nobody_listens(outgoing: Outgoing, receiver: Receiver) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(NotAnswered, match="refused"):
        await _post(outgoing, f"http://127.0.0.1:{port}/")


async def test_tls_must_be_right(outgoing: Outgoing, receiver: Receiver) -> None:
    with pytest.raises(NotAnswered):
        await _post(outgoing, receiver.url.replace("http:", "https:"))


async def test_a_name_is_resolved_once_and_connected_to_as_it_was_checked(receiver: Receiver) -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        # The second time, it would lead somewhere else.
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    outgoing = Outgoing(Addresses([ipaddress.ip_network(ALLOWED)], needs_tls=False, resolve=resolve), timeout_s=5.0)
    port = receiver.url.rpartition(":")[2].split("/")[0]
    assert (await _post(outgoing, f"http://hooks.example.com:{port}/hook")).status == 204
    assert receiver.requests[0].headers["host"] == f"hooks.example.com:{port}"
    assert asked == ["hooks.example.com"]
    outgoing.close()
    with pytest.raises(AddressRefused):
        await _post(outgoing, f"http://hooks.example.com:{port}/hook")
    assert receiver.connections == 1


def test_on_the_event_loop_of_the_services() -> None:
    async def post() -> int:
        async with receiving() as receiver:
            outgoing = Outgoing(Addresses([ipaddress.ip_network(ALLOWED)], needs_tls=False), timeout_s=5.0)
            try:
                for _ in range(2):
                    status = (await _post(outgoing, receiver.url)).status
                return status
            finally:
                outgoing.close()

    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(post()) == 204

"""One kept connection, over a real socket."""

import socket
import threading
from collections.abc import Iterator

import pytest
from tests.unit.kit.receiver import Receiver, receiving

from foretell.kit.posting import NotReached, Poster, host_and_port


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def _poster(url: str, *, token: str = "", timeout_s: float = 30.0) -> Poster:
    return Poster(url, token=token, timeout_s=timeout_s)


def test_many_posts_share_one_connection(receiver: Receiver) -> None:
    poster = _poster(receiver.url)
    assert [poster.post("/logs", b"%d" % number, "text/plain") for number in range(3)] == [200] * 3
    assert [body for _, _, body in receiver.posts] == [b"0", b"1", b"2"]
    assert receiver.connections == 1
    assert poster.local_host == "127.0.0.1"
    poster.close()
    assert poster.local_host == ""


def test_token_content_type_and_path_arrive(receiver: Receiver) -> None:
    poster = _poster(f"{receiver.url}/monitoring/", token="secret")
    poster.post("/logs", b"{}", "application/json")
    ((path, headers, _),) = receiver.posts
    assert (path, headers["authorization"], headers["content-type"]) == (
        "/monitoring/logs",
        "Bearer secret",
        "application/json",
    )
    poster.close()


def test_without_a_token_none_is_shown(receiver: Receiver) -> None:
    poster = _poster(receiver.url)
    poster.post("/logs", b"", "text/plain")
    assert "authorization" not in receiver.posts[0][1]
    poster.close()


def test_a_status_is_an_answer_whatever_it_is(receiver: Receiver) -> None:
    poster = _poster(receiver.url)
    receiver.status = 503
    assert poster.post("/logs", b"", "text/plain") == 503
    receiver.status = 404
    assert poster.post("/logs", b"", "text/plain") == 404
    poster.close()


def test_a_server_that_was_started_anew_is_reached_at_once(receiver: Receiver) -> None:
    poster = _poster(receiver.url)
    poster.post("/logs", b"one", "text/plain")
    receiver.stop()
    receiver.start()
    assert poster.post("/logs", b"two", "text/plain") == 200
    assert [body for _, _, body in receiver.posts] == [b"one", b"two"]
    poster.close()


def test_a_server_that_is_away_is_not_reached_and_later_it_is(receiver: Receiver) -> None:
    poster = _poster(receiver.url)
    receiver.stop()
    for _ in range(2):
        with pytest.raises(NotReached, match="refused"):
            poster.post("/logs", b"", "text/plain")
    receiver.start()
    assert poster.post("/logs", b"", "text/plain") == 200
    poster.close()


def test_a_server_that_does_not_answer_is_not_waited_for(receiver: Receiver) -> None:
    poster = _poster(receiver.url)
    poster.post("/logs", b"one", "text/plain")
    receiver.going_on.clear()
    # It may be lowered for a connection that is there.
    poster.timeout_s = 0.1
    with pytest.raises(NotReached, match="timed out"):
        poster.post("/logs", b"two", "text/plain")


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 999999 what\r\n\r\n"])
def test_what_is_no_http_server_is_not_reached(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(NotReached):
            _poster(f"http://127.0.0.1:{listener.getsockname()[1]}").post("/logs", b"", "text/plain")


def test_addresses_are_written_with_their_brackets() -> None:
    assert host_and_port("127.0.0.1", 80) == "127.0.0.1:80"
    assert host_and_port("::1", 80) == "[::1]:80"
    assert _poster("http://user:password@somewhere").server == "somewhere:80"
    assert _poster("https://[::1]").server == "[::1]:443"

"""Who no longer answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from foretell.local.silence import Answer, Listener, Target, ask

HAND = Target("hand", 7, "127.0.0.1", 1)
FRONT = Target("front", 8, "127.0.0.1", 2)


def look(listener: Listener, *answers: Answer, target: Target = HAND) -> None:
    for answer in answers:
        listener.look([target], [answer])


def test_who_did_not_answer_six_times_in_a_row_is_silent_and_is_named_once() -> None:
    listener = Listener(60)
    look(listener, Answer.LIVES, *[Answer.SILENT] * 5)
    assert listener.silent() == []
    look(listener, Answer.SILENT)
    assert listener.silent() == [HAND]
    look(listener, *[Answer.SILENT] * 20)
    assert listener.silent() == []


def test_an_answer_in_between_counts_from_the_beginning() -> None:
    listener = Listener(60)
    look(listener, Answer.LIVES, *[Answer.SILENT] * 5, Answer.LIVES, *[Answer.SILENT] * 5)
    assert listener.silent() == []


def test_who_has_never_listened_may_take_as_long_as_it_likes() -> None:
    listener = Listener(60)
    look(listener, *[Answer.REFUSED] * 100)
    assert listener.silent() == []
    # It listens, and does not answer: that counts, although it has never answered.
    look(listener, *[Answer.SILENT] * 6)
    assert listener.silent() == [HAND]


def test_who_has_listened_and_no_longer_does_is_silent_too() -> None:
    listener = Listener(60)
    look(listener, Answer.LIVES, *[Answer.REFUSED] * 6)
    assert listener.silent() == [HAND]


def test_the_next_process_of_that_name_begins_anew() -> None:
    listener = Listener(60)
    look(listener, Answer.LIVES, *[Answer.SILENT] * 5)
    look(listener, *[Answer.REFUSED] * 50, target=Target("hand", 9, "127.0.0.1", 1))
    assert listener.silent() == []


def test_each_is_counted_for_itself() -> None:
    listener = Listener(60)
    for _ in range(6):
        listener.look([HAND, FRONT], [Answer.SILENT, Answer.LIVES])
    assert listener.silent() == [HAND]


@contextmanager
def answering(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/live" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_whatever_is_answered_an_event_loop_turns() -> None:
    for status in (200, 503):
        with answering(status) as port:
            assert ask(Target("hand", 1, "127.0.0.1", port), 30) is Answer.LIVES


def test_nobody_there_is_told_from_somebody_who_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert ask(Target("hand", 1, "127.0.0.1", port), 0.2) is Answer.SILENT
    assert ask(Target("hand", 1, "127.0.0.1", port), 30) is Answer.REFUSED


def test_it_asks_by_itself() -> None:
    asked = threading.Event()
    listener = Listener(0.06, ask=lambda target, _: asked.set() or Answer.SILENT)  # type: ignore[func-returns-value]
    listener.listen_to([HAND])
    listener.start()
    found: list[Target] = []
    while not found:
        assert asked.wait(30)
        found = listener.silent()
    listener.close()
    assert found == [HAND]

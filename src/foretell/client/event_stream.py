"""Parses server-sent events according to the HTML standard."""

import json
from typing import cast

import httpx

from foretell.client.answers import SOMETHING_ELSE, Unreachable
from foretell.client.types import Event

_USUAL_PAUSE_S = 2.0


class EventStream:
    """The events in the bytes of a stream, and the position at which another connection continues."""

    def __init__(self, url: str, after: str | int | None) -> None:
        """`url` is for error messages; `after` is the id of the last known event, or None."""
        self._url = url
        self._buffer = b""
        self._data: list[bytes] = []
        self._id = b""
        #: The id of the last event; another connection sends it as Last-Event-ID.
        self.last_id = None if after is None else str(after)
        #: Seconds to wait before the next connection, set by the stream.
        self.pause_s = _USUAL_PAUSE_S

    def begin(self, response: httpx.Response) -> None:
        """Start with a new connection; a partial event of the last one is dropped. Raises `Unreachable`."""
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise Unreachable(url=self._url, reason=SOMETHING_ELSE)
        self._buffer = b""
        self._data = []
        self._id = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete now. Raises `Unreachable` for data that is not an event of the API."""
        # Not with `splitlines` or httpx's lines, which split a text at U+2028, which JSON does not escape.
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [event for line in lines if (event := self._line(line.rstrip(b"\r"))) is not None]

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._event()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"id" and b"\0" not in value:
            self._id = value
        elif name == b"retry" and value.isdigit():
            self.pause_s = int(value) / 1000
        return None

    def _event(self) -> Event | None:
        # Set when the event is complete; otherwise the next connection would skip it.
        self.last_id = self._id.decode() or self.last_id
        data, self._data = self._data, []
        if not data:
            return None
        try:
            return cast(Event, json.loads(b"\n".join(data)))
        except ValueError as error:
            raise Unreachable(url=self._url, reason=SOMETHING_ELSE) from error

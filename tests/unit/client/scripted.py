"""A scripted API, and both clients against it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, closing
from itertools import islice
from typing import Any

import httpx

from foretell.client import AsyncClient, Client


class Script:
    """Answers requests one after the other, and keeps them; an exception stands for a connection that fails."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.pauses_s: list[float] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in these pieces, after which the connection breaks."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        raise httpx.ReadError("broken")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        raise httpx.ReadError("broken")


class InOneWay:
    """Calls a method of `Client`, or of `AsyncClient`, so that each test runs with both."""

    def __init__(self, asynchronous: bool) -> None:
        self._asynchronous = asynchronous

    async def __call__(
        self, script: Script, method: str, *arguments: Any, retry_for_s: float = 30.0, **more: Any
    ) -> Any:
        transport = httpx.MockTransport(script.answer)
        if self._asynchronous:

            async def sleep(pause_s: float) -> None:
                script.pauses_s.append(pause_s)

            async with AsyncClient(
                "http://foretell.example", token="t", retry_for_s=retry_for_s, transport=transport, sleep=sleep
            ) as client:
                call: Callable[..., Awaitable[Any]] = getattr(client, method)
                return await call(*arguments, **more)
        with Client(
            "http://foretell.example",
            token="t",
            retry_for_s=retry_for_s,
            transport=transport,
            sleep=script.pauses_s.append,
        ) as blocking:
            return getattr(blocking, method)(*arguments, **more)

    async def first(self, count: int, script: Script, method: str, *arguments: Any, **more: Any) -> list[Any]:
        """The first items of an iterator, which is closed then; fewer if it ends before."""
        transport = httpx.MockTransport(script.answer)
        if self._asynchronous:

            async def sleep(pause_s: float) -> None:
                script.pauses_s.append(pause_s)

            async with AsyncClient("http://foretell.example", token="t", transport=transport, sleep=sleep) as client:
                items = []
                async with aclosing(getattr(client, method)(*arguments, **more)) as iterator:
                    async for item in iterator:
                        items.append(item)
                        if len(items) == count:
                            break
                return items
        with (
            Client("http://foretell.example", token="t", transport=transport, sleep=script.pauses_s.append) as blocking,
            closing(getattr(blocking, method)(*arguments, **more)) as found,
        ):
            return list(islice(found, count))


def problem(status: int, code: str, detail: str = "", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    return httpx.Response(status, json={"status": status, "code": code, "detail": detail, **more}, headers=headers)

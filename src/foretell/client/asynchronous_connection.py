"""How `AsyncClient` asks: again where that helps, and with a token that renews itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import copy
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from foretell.client import calls
from foretell.client.answers import Attempts, Reply, response_of, value_of
from foretell.client.calls import Call
from foretell.client.connection import request_to, settings_of
from foretell.client.event_stream import EventStream
from foretell.client.tokens import AsyncToken, AsyncTokenSource, is_refused
from foretell.client.types import Event, Tokens, User
from foretell.kit.randomness import RANDOM

Answer = TypeVar("Answer")


class AsyncConnection:
    """The API of one Foretell, and who asks it."""

    def __init__(
        self,
        url: str,
        *,
        token: str | AsyncTokenSource | None = None,
        retry_for_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Nothing is sent yet. Raises `InvalidCall` for a faulty `url` or `token`.

        `url` is where the app is, "http://localhost:8000" say. `token` is an API key or an access token, or a function
        that is called for one at first and whenever the API refuses the last; without it, use `log_in`. White space
        around a token is left out. `retry_for_s` is for how many seconds a call is tried again; 0 is one attempt.
        `transport` and `sleep` are for tests.
        """
        self._url = url
        self._retry_for_s = calls.seconds("retry_for_s", retry_for_s)
        self._sleep = sleep
        self._http = httpx.AsyncClient(transport=transport, **settings_of(url, None))
        self._token = AsyncToken(token)
        self._refresh_token: str | None = None
        self._is_whole = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, unless they are another client's (`with_token`). A log-in goes on: see `log_out`."""
        if self._is_whole:
            await self._http.aclose()

    def with_token(self, token: str | AsyncTokenSource) -> Self:
        """The same API as somebody else, over the connections of this client, which closes them."""
        other = copy(self)
        other._token = AsyncToken(token)
        other._refresh_token = None
        other._is_whole = False
        return other

    async def register(self, username: str, password: str) -> User:
        """Create an account; `log_in` is the next step. Raises `ApiError` with status 409 if the name is taken."""
        return await self._ask(calls.register(username, password))

    async def log_in(self, username: str, password: str) -> Tokens:
        """Ask as this user from now on. Raises `ApiError` with status 401 for a wrong name or password.

        The log-in renews itself: when the access token ends, the refresh token gets the next pair. It lasts for as
        long as it is used at least once in 30 days (the operator may have set another time). The tokens are returned
        for who wants to keep them: see `refresh`.
        """
        return self._use(await self._ask(calls.log_in(username, password)))

    async def refresh(self, refresh_token: str) -> Tokens:
        """Go on with a log-in of which the refresh token was kept. It works once: keep the one that is returned."""
        return self._use(await self._ask(calls.refresh(refresh_token)))

    async def log_out(self) -> None:
        """End the log-in, and ask as nobody from now on. A token or API key that was given is only forgotten.

        Its refresh token ends at once; the access token, which is sent nowhere any more, after 15 minutes at most.
        """
        refresh_token, self._refresh_token = self._refresh_token, None
        self._token = AsyncToken(None)
        if refresh_token is not None:
            await self._ask(calls.revoke(refresh_token))

    def _use(self, tokens: Tokens) -> Tokens:
        self._refresh_token = tokens.get("refresh_token")
        self._token = AsyncToken(tokens["access_token"], self._renew if self._refresh_token else None)
        return tokens

    async def _renew(self) -> str:
        """The next access token of the log-in."""
        tokens = await self._ask(calls.refresh(self._refresh_token or ""))
        self._refresh_token = tokens["refresh_token"]
        return tokens["access_token"]

    async def _send(self, call: Call[Answer]) -> Answer:
        """The answer to a call. Raises `ApiError`, `InvalidCall`, `Unreachable`."""
        answer: Answer = value_of(await self._reply(call), self._url)
        return answer

    async def _ask(self, call: Call[Answer]) -> Answer:
        """The same without a token, for what opens an account or a log-in."""
        answer: Answer = value_of(await self._exchange(call, None), self._url)
        return answer

    async def _pages(
        self, page_after: Callable[[str | None], Call[Any]], cursor: str | None = None
    ) -> AsyncIterator[Any]:
        """The items of one page after the other, each page asked for when it is needed."""
        more = True
        while more:
            page = await self._send(page_after(cursor))
            for item in page["items"]:
                yield item
            cursor = page["next_cursor"]
            more = page.get("more", cursor is not None)

    async def _follow(self, after: str | int | None) -> AsyncIterator[Event]:
        """Events as they come, over one connection after the other. Raises `ApiError`, `Unreachable`."""
        stream = EventStream(self._url, after)
        while True:
            response = response_of(await self._reply(calls.event_stream(stream.last_id)), self._url)
            try:
                stream.begin(response)
                async for chunk in response.aiter_bytes():
                    for event in stream.feed(chunk):
                        yield event
            except httpx.TransportError:
                # Broken, or silent for too long: the next connection goes on behind the last event.
                pass
            finally:
                await response.aclose()
            # Spread, so that those whose app was restarted do not all come back at once.
            await self._sleep(stream.pause_s * RANDOM.uniform(1.0, 1.25))

    async def _reply(self, call: Call[Any]) -> Reply:
        """The outcome, with another token if the API refuses the one that we have."""
        token = await self._token.current()
        outcome = await self._exchange(call, token)
        if is_refused(outcome) and self._token.renews:
            outcome = await self._exchange(call, await self._token.renewed(token))
        return outcome

    async def _exchange(self, call: Call[Any], token: str | None) -> Reply:
        """The outcome that counts, after as many attempts as are due."""
        attempts = Attempts(call, self._retry_for_s)
        while True:
            outcome = await self._attempt(call, token)
            pause_s = attempts.pause_after(outcome)
            if pause_s is None:
                return outcome
            await self._sleep(pause_s)

    async def _attempt(self, call: Call[Any], token: str | None) -> Reply:
        try:
            response = await self._http.send(request_to(self._http, call, token), stream=True)
            if not (call.is_stream and response.is_success):
                try:
                    await response.aread()
                finally:
                    await response.aclose()
            return response
        except httpx.TransportError as error:
            return error

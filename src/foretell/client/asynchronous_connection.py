"""The connection of `AsyncClient`, with retries, and with automatic renewal of the token."""

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
    """A connection to the API of one Foretell installation, with a token."""

    def __init__(
        self,
        url: str,
        *,
        token: str | AsyncTokenSource | None = None,
        retry_for_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Sends nothing yet. Raises `InvalidCall` for an invalid `url` or `token`.

        `url` is the address of the app, such as "http://localhost:8000". `token` is an API key or an access token, or a
        function that returns one; it is called at first, and when the API refuses the last token. Without it, use
        `log_in`. White space around a token is removed. `retry_for_s`: for how long a call is retried; 0: one attempt.
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
        """Close the connections, unless they are another client's (`with_token`). A log-in stays valid (`log_out`)."""
        if self._is_whole:
            await self._http.aclose()

    def with_token(self, token: str | AsyncTokenSource) -> Self:
        """A client for another account that shares the connections of this one, which closes them."""
        other = copy(self)
        other._token = AsyncToken(token)
        other._refresh_token = None
        other._is_whole = False
        return other

    async def register(self, username: str, password: str) -> User:
        """Create an account; `log_in` is the next step. Raises `ApiError` with status 409 if the name is taken."""
        return await self._ask(calls.register(username, password))

    async def log_in(self, username: str, password: str) -> Tokens:
        """Act as this user from now on. Raises `ApiError` with status 401 for a wrong name or password.

        The log-in is renewed automatically: when the access token expires, the refresh token gets the next pair. It
        stays valid if it is used at least once in 30 days (the operator may have set another time). The tokens are
        returned, so that you can store them: see `refresh`.
        """
        return self._use(await self._ask(calls.log_in(username, password)))

    async def refresh(self, refresh_token: str) -> Tokens:
        """Continue a log-in with its stored refresh token. It works once: store the returned one."""
        return self._use(await self._ask(calls.refresh(refresh_token)))

    async def log_out(self) -> None:
        """End the log-in, and use no token from now on. A given token or API key is only dropped, not revoked.

        The refresh token ends at once; the access token, which is no longer used, after 15 minutes at most.
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
        """The same without a token, for registration and log-in."""
        answer: Answer = value_of(await self._exchange(call, None), self._url)
        return answer

    async def _pages(
        self, page_after: Callable[[str | None], Call[Any]], cursor: str | None = None
    ) -> AsyncIterator[Any]:
        """The items of all pages; each page is fetched when it is needed."""
        more = True
        while more:
            page = await self._send(page_after(cursor))
            for item in page["items"]:
                yield item
            cursor = page["next_cursor"]
            more = page.get("more", cursor is not None)

    async def _follow(self, after: str | int | None) -> AsyncIterator[Event]:
        """Events as they arrive, with reconnects. Raises `ApiError`, `Unreachable`."""
        stream = EventStream(self._url, after)
        while True:
            response = response_of(await self._reply(calls.event_stream(stream.last_id)), self._url)
            try:
                stream.begin(response)
                async for chunk in response.aiter_bytes():
                    for event in stream.feed(chunk):
                        yield event
            except httpx.TransportError:
                # Broken, or silent for too long: the next connection continues after the last event.
                pass
            finally:
                await response.aclose()
            # With jitter, so that the clients of a restarted app do not all reconnect at once.
            await self._sleep(stream.pause_s * RANDOM.uniform(1.0, 1.25))

    async def _reply(self, call: Call[Any]) -> Reply:
        """The outcome; if the API refuses the token, again with a new one."""
        token = await self._token.current()
        outcome = await self._exchange(call, token)
        if is_refused(outcome) and self._token.renews:
            outcome = await self._exchange(call, await self._token.renewed(token))
        return outcome

    async def _exchange(self, call: Call[Any], token: str | None) -> Reply:
        """The outcome of the last attempt, after retries."""
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

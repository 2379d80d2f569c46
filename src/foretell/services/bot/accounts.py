"""Whose account it is: the bot asks the app in the name of whoever writes to it, and of nobody else."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from foretell.client import ApiError, AsyncClient
from foretell.client.answers import Attempts, value_of
from foretell.client.calls import Call
from foretell.client.connection import request_of, settings_of
from foretell.kit.errors import ForetellError

#: A token is renewed when it would end within this time.
_MARGIN_S = 60.0
_MOST_TOKENS = 10_000
_UNAUTHORIZED = 401
_NOT_FOUND = 404


class NotLinked(ForetellError):
    """This chat has no account."""

    code = "not_linked"


class Accounts:
    """The accounts of people, each known by the person's number at Telegram, which is that of the private chat."""

    def __init__(
        self, app_url: str, secret: str, *, patience_s: float = 6.0, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`patience_s` is for how long a call is tried again."""
        self._url = app_url
        self._patience_s = patience_s
        self._tokens: dict[int, tuple[str, float]] = {}
        # One set of connections for everybody.
        self._transport = transport or httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=50))
        self._http = httpx.AsyncClient(transport=self._transport, **settings_of(app_url, secret))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(self, method: str, path: str, **body: Any) -> Any:
        # Every one of them may be told twice.
        call = Call(method, path, repeatable=True, json=body or None)
        attempts = Attempts(call, self._patience_s)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.request(**request_of(call))
            except httpx.TransportError as error:
                outcome = error
            pause_s = attempts.pause_after(outcome)
            if pause_s is None:
                return value_of(outcome, self._url)
            await asyncio.sleep(pause_s)

    async def tell_name(self, username: str) -> None:
        """Say what the bot is called, for deep links. Raises `ApiError`, `Unreachable`."""
        await self._ask("PUT", "/telegram/bot", username=username)

    async def sign_up(self, user_id: int, language: str, name: str) -> dict[str, Any]:
        """Make an account for somebody, or find the one that is linked. Raises `ApiError`, `Unreachable`."""
        answer: dict[str, Any] = await self._ask(
            "POST", "/telegram/accounts", chat_id=user_id, language=language, name=name
        )
        return answer

    async def link(self, user_id: int, code: str) -> None:
        """Link the account that made `code`. Raises `ApiError` (404: no such code, 409: linked), `Unreachable`."""
        await self._ask("POST", "/telegram/links", chat_id=user_id, code=code)
        self._tokens.pop(user_id, None)

    async def unlink(self, user_id: int) -> bool:
        """Forget whose account it is; False when there was none. Raises `ApiError`, `Unreachable`."""
        self._tokens.pop(user_id, None)
        try:
            await self._ask("DELETE", f"/telegram/links/{user_id}")
        except ApiError as error:
            if error.status_code == _NOT_FOUND:
                return False
            raise
        return True

    async def pay(self, user_id: int, charge_id: str, stars: int, credits: int) -> dict[str, Any]:
        """Count a payment; told twice it counts once. Raises `ApiError`, `Unreachable`."""
        answer: dict[str, Any] = await self._ask(
            "POST", "/telegram/payments", chat_id=user_id, charge_id=charge_id, stars=stars, credits=credits
        )
        return answer

    async def _token(self, user_id: int) -> str:
        token, until = self._tokens.get(user_id, ("", 0.0))
        if time.monotonic() < until:
            return token
        try:
            answer = await self._ask("POST", "/telegram/tokens", chat_id=user_id)
        except ApiError as error:
            if error.status_code == _NOT_FOUND:
                raise NotLinked from None
            raise
        if len(self._tokens) >= _MOST_TOKENS:
            self._tokens.clear()
        self._tokens[user_id] = (
            answer["access_token"],
            time.monotonic() + max(0.0, float(answer["expires_in"]) - _MARGIN_S),
        )
        return str(answer["access_token"])

    @asynccontextmanager
    async def client_of(self, user_id: int) -> AsyncIterator[AsyncClient]:
        """The API, asked in the name of this person. Raises `NotLinked`, `ApiError`, `Unreachable`."""
        token = await self._token(user_id)
        client = AsyncClient(self._url, token=token, retry_for_s=self._patience_s, transport=self._transport)
        try:
            # Not closed: the connections are everybody's.
            yield client
        except ApiError as error:
            if error.status_code == _UNAUTHORIZED:
                # Keys may have changed; the next call takes a new one.
                self._tokens.pop(user_id, None)
            raise

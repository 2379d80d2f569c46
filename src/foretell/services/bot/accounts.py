"""The accounts of chats: the bot calls the app only on behalf of the person who wrote to it."""

import asyncio
from collections import OrderedDict
from typing import Any

import httpx

from foretell.client import ApiError, AsyncClient, Unreachable
from foretell.client.answers import Attempts, value_of
from foretell.client.calls import Call
from foretell.client.connection import request_of, settings_of
from foretell.kit.errors import ForetellError

#: The number of cached clients; a person beyond it needs a new token.
_MOST_CLIENTS = 2_000
_NOT_FOUND = 404
_NOT_LINKED = "chat_not_linked"


class NotLinked(ForetellError):
    """This chat has no account."""

    code = "not_linked"


class Accounts:
    """The accounts of people, by their Telegram user id, which is also the id of the private chat."""

    def __init__(
        self, app_url: str, secret: str, *, patience_s: float = 6.0, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`patience_s` is how long a call is retried."""
        self._url = app_url
        self._patience_s = patience_s
        # All clients share one connection pool.
        connections = transport or httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=50))
        self._http = httpx.AsyncClient(transport=connections, **settings_of(app_url, secret))
        self._everybody = AsyncClient(app_url, retry_for_s=patience_s, transport=connections)
        #: In order of last use.
        self._clients: OrderedDict[int, AsyncClient] = OrderedDict()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(self, method: str, path: str, **body: Any) -> Any:
        # All these calls are idempotent.
        call: Call[Any] = Call(method, path, repeatable=True, json=body or None)
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
        """Send the bot's name to the app, for deep links. Raises `ApiError`, `Unreachable`."""
        await self._ask("PUT", "/telegram/bot", username=username)

    async def sign_up(self, user_id: int, language: str, name: str) -> dict[str, Any]:
        """Create an account for a person, or find the linked one. Raises `ApiError`, `Unreachable`."""
        answer: dict[str, Any] = await self._ask(
            "POST", "/telegram/accounts", chat_id=user_id, language=language, name=name
        )
        return answer

    async def link(self, user_id: int, code: str, name: str) -> None:
        """Link the account that made `code`. Raises `ApiError` (404: no such code, 409: linked), `Unreachable`."""
        await self._ask("POST", "/telegram/links", chat_id=user_id, code=code, name=name)
        self._clients.pop(user_id, None)

    async def unlink(self, user_id: int) -> bool:
        """Unlink a person; False when there was no link. Raises `ApiError`, `Unreachable`."""
        self._clients.pop(user_id, None)
        try:
            await self._ask("DELETE", f"/telegram/links/{user_id}")
        except ApiError as error:
            if error.problem_code == _NOT_LINKED:
                return False
            raise
        return True

    async def pay(self, user_id: int, charge_id: str, stars: int, credits: int) -> dict[str, Any]:
        """Report a payment; one that is reported twice is booked once. Raises `ApiError`, `Unreachable`."""
        answer: dict[str, Any] = await self._ask(
            "POST", "/telegram/payments", chat_id=user_id, charge_id=charge_id, stars=stars, credits=credits
        )
        return answer

    async def account_of(self, user_id: int) -> str:
        """The id of this person's current account. Raises `NotLinked`, `ApiError`, `Unreachable`."""
        return str((await self._ask_for_token(user_id)).get("user_id") or "")

    async def _fetch(self, user_id: int) -> str:
        return str((await self._ask_for_token(user_id))["access_token"])

    async def _ask_for_token(self, user_id: int) -> dict[str, Any]:
        """An access token of this person's account."""
        try:
            answer: dict[str, Any] = await self._ask("POST", "/telegram/tokens", chat_id=user_id)
        except ApiError as error:
            if error.problem_code == _NOT_LINKED:
                self._clients.pop(user_id, None)
                raise NotLinked from None
            if error.status_code == _NOT_FOUND:
                # The app's answer to callers without the bot's secret; it is unrelated to the chat.
                reason = "it does not know the bot by its secret, FORETELL_BOT_SECRET"
                raise Unreachable(url=self._url, reason=reason) from None
            raise
        return answer

    async def client_of(self, user_id: int) -> AsyncClient:
        """A client of the API for this person's account. Raises `NotLinked`, `ApiError`, `Unreachable`.

        Every call of the client raises them, too: the app refuses its token once the chat is unlinked, and issues no
        other.
        """
        client = self._clients.get(user_id)
        if client is None:
            first: list[str] = [await self._fetch(user_id)]

            async def token() -> str:
                return first.pop() if first else await self._fetch(user_id)

            client = self._clients[user_id] = self._everybody.with_token(token)
            if len(self._clients) > _MOST_CLIENTS:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(user_id)
        return client

"""Tokens of a client: a fixed one, or one that is fetched, and fetched again when the API refuses it."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable

import httpx

from foretell.client.answers import Reply
from foretell.client.calls import InvalidCall

#: Returns a token, for example from a log-in. Its exceptions are passed on.
TokenSource = Callable[[], str]
AsyncTokenSource = Callable[[], Awaitable[str]]

_TOKEN = re.compile(r"[!-~]+")


def checked(token: str) -> str:
    """The token without surrounding white space, such as a line end. Raises `InvalidCall`, without the token."""
    stripped = token.strip() if isinstance(token, str) else ""
    if not _TOKEN.fullmatch(stripped):
        raise InvalidCall(reason="a token must be a text of ASCII letters, digits and signs, without white space")
    return stripped


def is_refused(outcome: Reply) -> bool:
    """Whether the API refuses the token. Then the request had no effect."""
    return isinstance(outcome, httpx.Response) and outcome.status_code == 401


class Token:
    """The token of a blocking client."""

    def __init__(self, given: str | TokenSource | None, source: TokenSource | None = None) -> None:
        """`given` is the first one, or fetches it and every other; `source` fetches those after the first."""
        self._value = None if given is None or callable(given) else checked(given)
        self._source = given if callable(given) else source
        self._fetching = threading.Lock()

    @property
    def renews(self) -> bool:
        """Whether a token that is refused can be replaced."""
        return self._source is not None

    def current(self) -> str | None:
        """The token, fetched if necessary; None without a token."""
        return self.renewed(None) if self._value is None else self._value

    def renewed(self, refused: str | None) -> str | None:
        """Another one than `refused`; fetched once for all who hold that one."""
        with self._fetching:
            if self._value == refused and self._source is not None:
                self._value = checked(self._source())
            return self._value


class AsyncToken:
    """The token of an asynchronous client."""

    def __init__(self, given: str | AsyncTokenSource | None, source: AsyncTokenSource | None = None) -> None:
        """`given` is the first one, or fetches it and every other; `source` fetches those after the first."""
        self._value = None if given is None or callable(given) else checked(given)
        self._source = given if callable(given) else source
        self._fetching = asyncio.Lock()

    @property
    def renews(self) -> bool:
        """Whether a token that is refused can be replaced."""
        return self._source is not None

    async def current(self) -> str | None:
        """The token, fetched if necessary; None without a token."""
        return await self.renewed(None) if self._value is None else self._value

    async def renewed(self, refused: str | None) -> str | None:
        """Another one than `refused`; fetched once for all who hold that one."""
        async with self._fetching:
            if self._value == refused and self._source is not None:
                self._value = checked(await self._source())
            return self._value

"""Who calls: an access token or an API key from the headers, to an `Identity`. Knows no web framework."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import UUID

import structlog

from foretell.domain.accounts import api_keys, telegram
from foretell.domain.accounts.identity import Identity
from foretell.domain.accounts.tokens import AccessTokens
from foretell.domain.errors import InvalidToken
from foretell.kit import deadline
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError, Unavailable

log = structlog.get_logger()

#: So long may a key that was revoked in another process still work here.
API_KEY_REMEMBERED_S = 5.0
_RECORD_USES_EVERY_S = 60.0


def token_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The credentials in raw headers: `Authorization: Bearer` before `X-API-Key`. Raises `InvalidToken` without any."""
    api_key = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer" and (credentials := credentials.strip()):
                return credentials.decode("latin-1")
        elif name == b"x-api-key":
            api_key = value.strip()
    if not api_key:
        raise InvalidToken
    return api_key.decode("latin-1")


class Authenticator:
    """Identifies callers, remembering API keys for `remembered_s`, the `max_remembered` last used ones.

    Access tokens never need the database, but for those of Telegram chats: with a chat's link its tokens end at once.
    `key_uses` gathers which API keys were used (see `record_key_uses`).
    """

    def __init__(
        self,
        database: Database,
        access_tokens: AccessTokens,
        *,
        remembered_s: float = API_KEY_REMEMBERED_S,
        max_remembered: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key_uses = api_keys.KeyUses()
        self._database = database
        self._access_tokens = access_tokens
        self._remembered_s = remembered_s
        self._max_remembered = max_remembered
        self._clock = clock
        self._remembered: OrderedDict[str, tuple[Identity, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Identity]] = {}
        self._revocations = 0

    def identify_cached(self, token: str) -> Identity | None:
        """Who `token` proves to be, at once; None if only `identify` can tell. Raises `InvalidToken`."""
        if not token.startswith(api_keys.PREFIX):
            identity = self._access_tokens.verify(token)
            return identity if identity.chat is None else None
        remembered = self._remembered.get(token)
        if remembered is None or self._clock() >= remembered[1]:
            return None
        self._remembered.move_to_end(token)
        identity = remembered[0]
        assert identity.api_key_id is not None
        self.key_uses.note(identity.api_key_id)
        return identity

    async def identify(self, token: str) -> Identity:
        """Who `token` proves to be. Raises `InvalidToken`, `Unavailable`."""
        identity = self.identify_cached(token)
        if identity is not None:
            return identity
        if not token.startswith(api_keys.PREFIX):
            return await self._of_chat(token)
        # Many requests with one key arrive together: one of them asks for all.
        asking = self._asking.get(token)
        if asking is None:
            asking = self._asking[token] = asyncio.create_task(self._ask(token))
            asking.add_done_callback(lambda done: self._asked(token, done))
        try:
            # Shielded, since others wait for the same answer, and have come sooner or later than we.
            async with asyncio.timeout_at(deadline.until()):
                return await asyncio.shield(asking)
        except TimeoutError:
            raise Unavailable(part="database") from None

    async def _of_chat(self, token: str) -> Identity:
        """Never remembered: whoever unlinks a chat, in whichever process, has the word that it is over."""
        identity = self._access_tokens.verify(token)
        assert identity.chat is not None
        async with self._database.snapshot() as connection:
            if not await telegram.is_linked(connection, identity.user_id, identity.chat):
                raise InvalidToken
        return identity

    def forget_api_key(self, api_key_id: UUID) -> None:
        """The key was revoked here: it ends at once. Call it after the commit."""
        self._revocations += 1
        for token in [token for token, (known, _) in self._remembered.items() if known.api_key_id == api_key_id]:
            del self._remembered[token]

    async def _ask(self, token: str) -> Identity:
        revocations = self._revocations
        async with self._database.snapshot() as connection:
            identity = await api_keys.identify(connection, token)
        assert identity.api_key_id is not None
        self.key_uses.note(identity.api_key_id)
        # An answer from before a revocation must not outlive it.
        if revocations == self._revocations:
            self._remembered[token] = (identity, self._clock() + self._remembered_s)
            self._remembered.move_to_end(token)
            if len(self._remembered) > self._max_remembered:
                self._remembered.popitem(last=False)
        return identity

    def _asked(self, token: str, done: "asyncio.Task[Identity]") -> None:
        del self._asking[token]
        if not done.cancelled():
            # Every caller may have given up meanwhile; that is no reason for a warning.
            done.exception()


async def record_key_uses(authenticator: Authenticator, database: Database, stopping: asyncio.Event) -> None:
    """Write down once a minute which API keys were used, and a last time when `stopping` is set."""
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _RECORD_USES_EVERY_S)
        uses = authenticator.key_uses.take()
        if uses:
            try:
                async with database.transaction() as connection:
                    await api_keys.record_uses(connection, uses)
            except ForetellError as error:
                # Nobody is harmed by a time of last use that is a little old.
                log.warning("key_uses_not_recorded", reason=error.message)
        if stopping.is_set():
            return

"""Authenticates a caller by access token, API key or session. Independent of the web framework."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from foretell.domain.accounts import api_keys, registration, sessions, telegram
from foretell.domain.accounts.identity import Identity
from foretell.domain.accounts.lifetime import Lifetime
from foretell.domain.accounts.registration import Ended
from foretell.domain.accounts.tokens import AccessTokens
from foretell.domain.errors import InvalidToken
from foretell.kit import deadline
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError, Unavailable
from foretell.kit.pauses import set_within
from foretell.services.app.page.cookies import SAFE_METHODS, check_not_foreign, session_secret_of

log = structlog.get_logger()

#: A key revoked or a session ended in another process may work here for this long.
REMEMBERED_S = 5.0
#: How often a process reads which accounts were blocked in another one.
ENDINGS_EVERY_S = 1.0
#: Allowed difference between the clocks of machines.
_CLOCKS_DIFFER_S = 120.0
_RECORD_USES_EVERY_S = 60.0
#: Prefixes of the credentials that are looked up in the database.
_LOOKED_UP = (api_keys.PREFIX, sessions.PREFIX)


def token_of(headers: Sequence[tuple[bytes, bytes]], method: str = "GET") -> str:
    """The credentials in raw headers: `Authorization: Bearer`, else `X-API-Key`, else the session's cookie.

    With the cookie, a request that changes something needs `X-CSRF-Token`. Raises `InvalidToken` without any
    credentials, and `ForeignRequest`.
    """
    api_key = cookies = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer" and (credentials := credentials.strip()):
                return _not_a_session(credentials.decode("latin-1"))
        elif name == b"x-api-key":
            api_key = value.strip()
        elif name == b"cookie":
            cookies = cookies + b";" + value if cookies else value
    if api_key:
        return _not_a_session(api_key.decode("latin-1"))
    secret = session_secret_of(cookies) if cookies else None
    if secret is None:
        raise InvalidToken
    if method not in SAFE_METHODS:
        check_not_foreign(headers, secret)
    return secret


def _not_a_session(token: str) -> str:
    # A session's secret is valid only as a cookie, because a cookie also needs the CSRF token.
    if token.startswith(sessions.PREFIX):
        raise InvalidToken
    return token


class Authenticator:
    """Identifies callers. Caches the `max_remembered` last used keys and sessions for `remembered_s`.

    Access tokens need no database, except those of Telegram chats, which end as soon as the chat is unlinked.
    `follow_endings` reports accounts that were blocked or ended their log-ins (`end`). `key_uses` and `session_uses`
    collect what was used (see `record_uses`).
    """

    def __init__(
        self,
        database: Database,
        access_tokens: AccessTokens,
        *,
        remembered_s: float = REMEMBERED_S,
        max_remembered: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key_uses = api_keys.KeyUses()
        self.session_uses = api_keys.KeyUses()
        self._database = database
        self._access_tokens = access_tokens
        self._remembered_s = remembered_s
        self._max_remembered = max_remembered
        self._clock = clock
        self._remembered: OrderedDict[str, tuple[Identity, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Identity]] = {}
        self._revocations = 0
        #: By account: whether it is active, and the earliest issue time of valid access tokens, in seconds since 1970.
        self._ended: dict[UUID, tuple[bool, float]] = {}

    def identify_cached(self, token: str) -> Identity | None:
        """The identity of `token` from memory; None if `identify` is needed. Raises `InvalidToken`."""
        if not token.startswith(_LOOKED_UP):
            identity = self._access_tokens.verify(token)
            if self._ended:
                self.check(identity)
            return identity if identity.chat is None else None
        remembered = self._remembered.get(token)
        if remembered is None or self._clock() >= remembered[1]:
            return None
        self._remembered.move_to_end(token)
        identity = remembered[0]
        self._note_use(identity)
        return identity

    def check(self, identity: Identity) -> None:
        """Raises `InvalidToken` if the account has been blocked or the access token has been ended since."""
        ended = self._ended.get(identity.user_id)
        if ended is None:
            return
        active, tokens_from = ended
        if not active or (identity.issued_at and identity.issued_at < tokens_from):
            raise InvalidToken

    async def check_still(self, identity: Identity, token: str) -> None:
        """The same for a stream, which must also end with its session or key. Also raises `Unavailable`."""
        self.check(identity)
        if token.startswith(_LOOKED_UP):
            await self.identify(token)

    async def identify(self, token: str) -> Identity:
        """The identity of `token`. Raises `InvalidToken`, `Unavailable`."""
        identity = self.identify_cached(token)
        if identity is not None:
            return identity
        if not token.startswith(_LOOKED_UP):
            return await self._of_chat(token)
        # Concurrent requests with the same key share one query.
        asking = self._asking.get(token)
        if asking is None:
            asking = self._asking[token] = asyncio.create_task(self._ask(token))
            asking.add_done_callback(lambda done: self._asked(token, done))
        try:
            # Shielded, since other requests wait for the same query with their own deadlines.
            async with asyncio.timeout_at(deadline.until()):
                return await asyncio.shield(asking)
        except TimeoutError:
            raise Unavailable(part="database") from None

    async def _of_chat(self, token: str) -> Identity:
        """Not cached, because unlinking a chat in any process must end its tokens at once."""
        identity = self._access_tokens.verify(token)
        assert identity.chat is not None
        async with self._database.snapshot() as connection:
            if not await telegram.is_linked(connection, identity.user_id, identity.chat):
                raise InvalidToken
        return identity

    def forget_api_key(self, api_key_id: UUID) -> None:
        """Remove a revoked key from the cache. Call this after the commit."""
        self._forget(lambda known: known.api_key_id == api_key_id)

    def forget_session(self, session_id: UUID) -> None:
        """Remove an ended session from the cache. Call this after the commit."""
        self._forget(lambda known: known.session_id == session_id)

    def end(self, ended: Iterable[Ended]) -> None:
        """Apply changes of accounts; their keys and sessions are looked up again. Call this after the commit."""
        changed = set()
        for each in ended:
            found = (each.active, each.tokens_from.timestamp())
            if self._ended.get(each.user_id) != found:
                self._ended[each.user_id] = found
                changed.add(each.user_id)
        if changed:
            self._forget(lambda known: known.user_id in changed)

    def forget_ended(self, before: float) -> None:
        """Remove changes from before this time: all access tokens are newer, and other credentials are looked up."""
        for user_id in [each for each, (_, tokens_from) in self._ended.items() if tokens_from < before]:
            del self._ended[user_id]

    def _forget(self, is_meant: Callable[[Identity], bool]) -> None:
        self._revocations += 1
        for token in [token for token, (known, _) in self._remembered.items() if is_meant(known)]:
            del self._remembered[token]

    async def _ask(self, token: str) -> Identity:
        revocations = self._revocations
        identify = sessions.identify if token.startswith(sessions.PREFIX) else api_keys.identify
        async with self._database.snapshot() as connection:
            identity = await identify(connection, token)
        self._note_use(identity)
        # A result from before a revocation must not be cached.
        if revocations == self._revocations:
            self._remembered[token] = (identity, self._clock() + self._remembered_s)
            self._remembered.move_to_end(token)
            if len(self._remembered) > self._max_remembered:
                self._remembered.popitem(last=False)
        return identity

    def _note_use(self, identity: Identity) -> None:
        if identity.api_key_id is not None:
            self.key_uses.note(identity.api_key_id)
        elif identity.session_id is not None:
            self.session_uses.note(identity.session_id)

    def _asked(self, token: str, done: "asyncio.Task[Identity]") -> None:
        del self._asking[token]
        if not done.cancelled():
            # Retrieve the error, so that asyncio does not warn when no caller waits any more.
            done.exception()


async def record_uses(
    authenticator: Authenticator, database: Database, lifetime: Lifetime, stopping: asyncio.Event
) -> None:
    """Record the used keys and sessions every minute, and once more when `stopping` is set."""
    while True:
        await set_within(stopping, _RECORD_USES_EVERY_S)
        keys, browsers = authenticator.key_uses.take(), authenticator.session_uses.take()
        if keys or browsers:
            try:
                async with database.transaction() as connection:
                    await api_keys.record_uses(connection, keys)
                    await sessions.record_uses(connection, browsers, lifetime)
            except ForetellError as error:
                # A time of last use that is slightly old does no harm.
                log.warning("key_uses_not_recorded", reason=error.message)
        if stopping.is_set():
            return


async def follow_endings(authenticator: Authenticator, database: Database, oldest_token_s: float) -> None:
    """Poll, until cancelled, for accounts that any process has blocked or whose log-ins it has ended.

    Access tokens are valid for at most `oldest_token_s`.
    """
    while True:
        since = now() - timedelta(seconds=oldest_token_s + _CLOCKS_DIFFER_S)
        try:
            async with database.snapshot() as connection:
                authenticator.end(await registration.ended_since(connection, since))
            authenticator.forget_ended(since.timestamp())
        except ForetellError as error:
            log.warning("endings_not_looked_at", reason=error.message)
        await asyncio.sleep(ENDINGS_EVERY_S)

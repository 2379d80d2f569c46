"""Who calls: an access token, an API key or a session from the headers, to an `Identity`. Knows no web framework."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import structlog

from foretell.domain.accounts import api_keys, registration, sessions, telegram
from foretell.domain.accounts.identity import Identity
from foretell.domain.accounts.registration import Ended
from foretell.domain.accounts.sessions import Lifetime
from foretell.domain.accounts.tokens import AccessTokens
from foretell.domain.errors import InvalidToken
from foretell.kit import deadline
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError, Unavailable
from foretell.services.app.page.cookies import SAFE_METHODS, check_not_foreign, session_secret_of

log = structlog.get_logger()

#: So long may a key that was revoked, or a session that was ended, in another process still work here.
REMEMBERED_S = 5.0
#: How often a process asks which accounts were blocked in another one.
ENDINGS_EVERY_S = 1.0
#: Machines' clocks may differ by so much.
_CLOCKS_DIFFER_S = 120.0
_RECORD_USES_EVERY_S = 60.0
#: How those begin which the database knows.
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
    # The secret of a session counts as a cookie only, which needs the other secret beside it.
    if token.startswith(sessions.PREFIX):
        raise InvalidToken
    return token


class Authenticator:
    """Identifies callers, remembering keys and sessions for `remembered_s`, the `max_remembered` last used ones.

    Access tokens never need the database, but for those of Telegram chats: with a chat's link its tokens end at once.
    Which accounts were blocked or have ended their log-ins it is told (`end`, see `endings.follow_endings`).
    `uses` gathers which keys and sessions were used (see `record_uses`).
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
        #: By account: whether it is active, and since when its access tokens count, in seconds since 1970.
        self._ended: dict[UUID, tuple[bool, float]] = {}

    def identify_cached(self, token: str) -> Identity | None:
        """Who `token` proves to be, at once; None if only `identify` can tell. Raises `InvalidToken`."""
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
        """Raises `InvalidToken` when this caller's account was blocked, or its access token ended, meanwhile."""
        ended = self._ended.get(identity.user_id)
        if ended is None:
            return
        active, tokens_from = ended
        if not active or (identity.issued_at and identity.issued_at < tokens_from):
            raise InvalidToken

    async def check_still(self, identity: Identity, token: str) -> None:
        """The same, for a stream that goes on: it ends with the session or the key. Raises `Unavailable`, too."""
        self.check(identity)
        if token.startswith(_LOOKED_UP):
            await self.identify(token)

    async def identify(self, token: str) -> Identity:
        """Who `token` proves to be. Raises `InvalidToken`, `Unavailable`."""
        identity = self.identify_cached(token)
        if identity is not None:
            return identity
        if not token.startswith(_LOOKED_UP):
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
        self._forget(lambda known: known.api_key_id == api_key_id)

    def forget_session(self, session_id: UUID) -> None:
        """The session was ended here: it ends at once. Call it after the commit."""
        self._forget(lambda known: known.session_id == session_id)

    def end(self, ended: Iterable[Ended]) -> None:
        """What became of accounts. Their keys and sessions are looked up anew. Call it after the commit."""
        changed = set()
        for each in ended:
            found = (each.active, each.tokens_from.timestamp())
            if self._ended.get(each.user_id) != found:
                self._ended[each.user_id] = found
                changed.add(each.user_id)
        if changed:
            self._forget(lambda known: known.user_id in changed)

    def forget_ended(self, before: float) -> None:
        """Forget what ended before: no access token is as old as that, and everything else is looked up."""
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
        # An answer from before a revocation must not outlive it.
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
            # Every caller may have given up meanwhile; that is no reason for a warning.
            done.exception()


async def record_uses(
    authenticator: Authenticator, database: Database, lifetime: Lifetime, stopping: asyncio.Event
) -> None:
    """Write down once a minute which keys and sessions were used, and a last time when `stopping` is set."""
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _RECORD_USES_EVERY_S)
        keys, browsers = authenticator.key_uses.take(), authenticator.session_uses.take()
        if keys or browsers:
            try:
                async with database.transaction() as connection:
                    await api_keys.record_uses(connection, keys)
                    await sessions.record_uses(connection, browsers, lifetime)
            except ForetellError as error:
                # Nobody is harmed by a time of last use that is a little old.
                log.warning("key_uses_not_recorded", reason=error.message)
        if stopping.is_set():
            return


async def follow_endings(authenticator: Authenticator, database: Database, oldest_token_s: float) -> None:
    """Hear again and again, until cancelled, of accounts that were blocked or ended their log-ins in any process.

    Access tokens are good for `oldest_token_s` at most.
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

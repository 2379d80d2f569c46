"""Passwords: which are allowed, and their hashes (argon2id), made in a few threads beside the event loop."""

import asyncio
import base64
import os
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from foretell.domain.errors import InvalidPassword, TooManyPasswords

MIN_LENGTH = 8
MAX_LENGTH = 1024

# OWASP's first choice for argon2id: 19 MiB, two passes, one lane. About 20 ms of one core.
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1
_SALT_BYTES = 16
_HASH_BYTES = 32

Returned = TypeVar("Returned")


def check_password(password: str) -> None:
    """Refuse what nobody may register with: under 8 or over 1024 characters, or a NUL. Raises `InvalidPassword`."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH or _as_bytes(password) is None:
        raise InvalidPassword(min_length=MIN_LENGTH, max_length=MAX_LENGTH)


def _as_bytes(password: str) -> bytes | None:
    """What is hashed: the NFC form, so that one password is one whatever keyboard composed it. None if impossible."""
    if len(password) > MAX_LENGTH or "\0" in password:
        return None
    try:
        return unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can carry and no text can.
        return None


def unmatchable_hash() -> str:
    """A well-formed hash of nothing: verifying against it costs what any verification costs, and always fails."""
    salt, digest = (base64.b64encode(os.urandom(n)).decode().rstrip("=") for n in (_SALT_BYTES, _HASH_BYTES))
    return f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}${salt}${digest}"


class _Lane:
    """A few threads and a bounded queue before them."""

    def __init__(self, name: str, max_parallel: int, max_waiting: int) -> None:
        self._threads = ThreadPoolExecutor(max_workers=max_parallel, thread_name_prefix=name)
        self._max_pending = max_parallel + max_waiting
        self._pending = 0

    async def run(self, work: Callable[[], Returned]) -> Returned:
        """What `work` returns. Raises `TooManyPasswords` when too many wait."""
        if self._pending >= self._max_pending:
            raise TooManyPasswords
        self._pending += 1
        future = self._threads.submit(work)
        # Counted when the thread is done with it, not when a caller gives up: the work goes on without them.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(self._one_done))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _one_done(self) -> None:
        self._pending -= 1


class Passwords:
    """Hashes and verifies passwords (argon2id, 19 MiB of memory each) beside the event loop.

    Verifying has a lane of at most `max_parallel` threads, hashing one of a single thread: however many register, who
    logs in does not wait behind them. With `max_waiting` passwords before a lane (a fifth of that before hashing),
    `verify` and `hash` raise `TooManyPasswords`: a flood must not eat the cores, and an answer after a minute is none.
    """

    def __init__(self, *, max_parallel: int = 2, max_waiting: int = 100) -> None:
        self._hasher = PasswordHasher(
            time_cost=_PASSES,
            memory_cost=_MEMORY_KIB,
            parallelism=_LANES,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
        )
        self._verifying = _Lane("argon2-verify", max_parallel, max_waiting)
        self._hashing = _Lane("argon2-hash", 1, max(1, max_waiting // 5))
        self._nobodys_hash = unmatchable_hash()

    async def hash(self, password: str) -> str:
        """The encoded argon2id hash of `password`, whatever its length rules.

        `check_password` says whether somebody may choose it. Raises `InvalidPassword`, `TooManyPasswords`.
        """
        data = _as_bytes(password)
        if data is None:
            raise InvalidPassword(min_length=MIN_LENGTH, max_length=MAX_LENGTH)
        return await self._hashing.run(lambda: self._hasher.hash(data))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether `password` is the one that `password_hash` was made of. Raises `TooManyPasswords`.

        None (there is no such user) takes as long as any hash, so that time does not tell who has an account.
        """
        data = _as_bytes(password)
        if data is None:
            # Nobody has such a password, and that must not be quicker to learn either.
            password_hash, data = None, b""
        encoded = password_hash or self._nobodys_hash

        def matches() -> bool:
            try:
                return self._hasher.verify(encoded, data)
            except (VerificationError, InvalidHashError):
                return False

        return await self._verifying.run(matches)

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether `password_hash` was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._verifying.close()
        self._hashing.close()

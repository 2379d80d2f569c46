"""Passwords: the rules for them, and their hashes (argon2id), computed in a few threads."""

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
    """Raises `InvalidPassword` for under 8 or over 1024 characters, or a NUL."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH or _as_bytes(password) is None:
        raise InvalidPassword(min_length=MIN_LENGTH, max_length=MAX_LENGTH)


def _as_bytes(password: str) -> bytes | None:
    """The bytes to hash: in NFC form, because keyboards compose characters differently. None if it can't be encoded."""
    if len(password) > MAX_LENGTH or "\0" in password:
        return None
    try:
        return unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair: possible in JSON, but not encodable.
        return None


def unmatchable_hash() -> str:
    """A valid hash that matches no password: verifying takes as long as any other, and always fails."""
    salt, digest = (base64.b64encode(os.urandom(n)).decode().rstrip("=") for n in (_SALT_BYTES, _HASH_BYTES))
    return f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}${salt}${digest}"


class _Lane:
    """A few threads and a bounded queue before them."""

    def __init__(self, name: str, max_parallel: int, max_waiting: int) -> None:
        self._threads = ThreadPoolExecutor(max_workers=max_parallel, thread_name_prefix=name)
        self._max_pending = max_parallel + max_waiting
        self._pending = 0

    async def run(self, work: Callable[[], Returned]) -> Returned:
        """The result of `work`. Raises `TooManyPasswords` when too many wait."""
        if self._pending >= self._max_pending:
            raise TooManyPasswords
        self._pending += 1
        future = self._threads.submit(work)
        # Counted until the thread has finished, because the work continues when the caller gives up.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(self._one_done))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _one_done(self) -> None:
        self._pending -= 1


class Passwords:
    """Hashes and verifies passwords (argon2id, 19 MiB of memory each) beside the event loop.

    Verifying has at most `max_parallel` threads, hashing a single separate one, so that log-ins do not wait for
    registrations. With `max_waiting` passwords in the queue (a fifth of that for hashing), `verify` and `hash` raise
    `TooManyPasswords`: a flood must not use all cores, and an answer after a minute is useless.
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
        """The encoded argon2id hash of `password`, without the rules for new passwords.

        `check_password` checks these rules. Raises `InvalidPassword`, `TooManyPasswords`.
        """
        data = _as_bytes(password)
        if data is None:
            raise InvalidPassword(min_length=MIN_LENGTH, max_length=MAX_LENGTH)
        return await self._hashing.run(lambda: self._hasher.hash(data))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether `password_hash` is the hash of `password`. Raises `TooManyPasswords`.

        None (there is no such user) takes as long as any hash, so that the time does not show which accounts exist.
        """
        data = _as_bytes(password)
        if data is None:
            # Such a password is always wrong; the answer must take as long as for any other.
            password_hash, data = None, b""
        encoded = password_hash or self._nobodys_hash

        def matches() -> bool:
            try:
                return self._hasher.verify(encoded, data)
            except (VerificationError, InvalidHashError):
                return False

        return await self._verifying.run(matches)

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether `password_hash` was made with other parameters than the current ones."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """End the threads; waiting work is dropped."""
        self._verifying.close()
        self._hashing.close()

"""Rate limits: against guessing passwords, without locking out the owner, and against too many requests."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from foretell.domain.accounts.usernames import username_key
from foretell.domain.errors import InvalidUsername, TooManyAttempts


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many failures are allowed (`burst`), and the seconds after which each is forgotten."""

    burst: int
    forgiven_after_s: float


class Buckets:
    """One token bucket per key; beyond `max_keys` the least recently used are removed."""

    def __init__(self, allowance: Allowance, *, max_keys: int, clock: Callable[[], float]) -> None:
        self._allowance = allowance
        self._max_keys = max_keys
        self._clock = clock
        # For each key, when the bucket will be full again. No entry means full.
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def wait_s(self, key: str) -> float:
        """Seconds until one attempt is free; 0 if one is."""
        full_at_s = self._full_at_s.get(key)
        if full_at_s is None:
            return 0.0
        # A bucket that is asked for again and again, under attack that is, must not be the next to be forgotten.
        self._full_at_s.move_to_end(key)
        spent = (full_at_s - self._clock()) / self._allowance.forgiven_after_s
        return max(0.0, spent - (self._allowance.burst - 1)) * self._allowance.forgiven_after_s

    def take(self, key: str) -> None:
        """Spend one attempt."""
        full_at_s = max(self._full_at_s.get(key, 0.0), self._clock()) + self._allowance.forgiven_after_s
        self._full_at_s[key] = full_at_s
        self._full_at_s.move_to_end(key)
        if len(self._full_at_s) > self._max_keys:
            self._full_at_s.popitem(last=False)

    def give_back(self, key: str) -> None:
        """Undo one `take`."""
        full_at_s = self._full_at_s.get(key)
        if full_at_s is None:
            return
        full_at_s -= self._allowance.forgiven_after_s
        if full_at_s <= self._clock():
            self.forget(key)
        else:
            self._full_at_s[key] = full_at_s

    def forget(self, key: str) -> None:
        """Fill the bucket."""
        self._full_at_s.pop(key, None)


class LoginThrottle:
    """Call `attempt` before a password is verified, and `succeeded` if it was right. For one process, in memory.

    There are three limits: per address (for all accounts), per address and account, and per account (for all
    addresses, against botnets). The last one does not apply to an address that has logged in to the account before, so
    that guesses from other addresses do not lock out the owner. IPv6 addresses count by their /64, which is what one
    household gets.
    """

    def __init__(
        self,
        *,
        per_address: Allowance = Allowance(burst=50, forgiven_after_s=6),
        per_pair: Allowance = Allowance(burst=10, forgiven_after_s=30),
        per_account: Allowance = Allowance(burst=100, forgiven_after_s=30),
        max_keys: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._addresses = Buckets(per_address, max_keys=max_keys, clock=clock)
        self._pairs = Buckets(per_pair, max_keys=max_keys, clock=clock)
        self._accounts = Buckets(per_account, max_keys=max_keys, clock=clock)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._max_keys = max_keys

    @property
    def remembered(self) -> int:
        """The number of entries in memory: at most four times `max_keys`."""
        return len(self._addresses) + len(self._pairs) + len(self._accounts) + len(self._known)

    def attempt(self, username: str, address: str) -> None:
        """Count one attempt of `address` at `username`. Raises `TooManyAttempts`, then nothing is counted."""
        buckets = self._buckets(username, address)
        wait_s = max(bucket.wait_s(key) for bucket, key in buckets)
        if wait_s > 0:
            whole_s = math.ceil(wait_s)
            raise TooManyAttempts(wait_s=whole_s, retry_after_s=float(whole_s))
        for bucket, key in buckets:
            bucket.take(key)

    def succeeded(self, username: str, address: str) -> None:
        """The password was right: undo the attempt, and remember the address as known for this account."""
        for bucket, key in self._buckets(username, address):
            bucket.give_back(key)
        pair = self._pair(username, address)
        self._pairs.forget(pair)
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > self._max_keys:
            self._known.popitem(last=False)

    def _buckets(self, username: str, address: str) -> list[tuple[Buckets, str]]:
        pair = self._pair(username, address)
        buckets = [(self._addresses, _network(address)), (self._pairs, pair)]
        if pair not in self._known:
            buckets.append((self._accounts, _account(username)))
        return buckets

    def _pair(self, username: str, address: str) -> str:
        return f"{_network(address)} {_account(username)}"


class SignupThrottle:
    """How many accounts an address may request in a day. For one process, in memory; IPv6 counts by /64, too.

    Failed requests count, too, because each costs the hash of a password.
    """

    def __init__(self, per_day: int, *, max_keys: int = 20_000, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_day` of 0 is no bound."""
        self._buckets = None
        if per_day:
            allowance = Allowance(burst=per_day, forgiven_after_s=_DAY_S / per_day)
            self._buckets = Buckets(allowance, max_keys=max_keys, clock=clock)

    def attempt(self, address: str) -> None:
        """Count one. Raises `TooManyAttempts`, counting nothing."""
        if self._buckets is not None:
            _take(self._buckets, _network(address))


class AccountThrottle:
    """How often an account may do something in a minute. For one process, in memory."""

    def __init__(self, per_minute: int, *, max_keys: int = 20_000, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` of 0 is no bound."""
        self._buckets = None
        if per_minute:
            allowance = Allowance(burst=per_minute, forgiven_after_s=60.0 / per_minute)
            self._buckets = Buckets(allowance, max_keys=max_keys, clock=clock)

    def attempt(self, user_id: UUID) -> None:
        """Count one. Raises `TooManyAttempts`, counting nothing."""
        if self._buckets is not None:
            _take(self._buckets, str(user_id))


def _take(buckets: Buckets, key: str) -> None:
    wait_s = math.ceil(buckets.wait_s(key))
    if wait_s > 0:
        raise TooManyAttempts(wait_s=wait_s, retry_after_s=float(wait_s))
    buckets.take(key)


_DAY_S = 86_400.0


def _account(username: str) -> str:
    try:
        return username_key(username)
    except InvalidUsername:
        # No such account can exist, so all such names may share one bucket.
        return ""


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)

"""Checks the URL of a webhook when it is set. The dispatcher checks it again before each delivery."""

import time
from collections import OrderedDict
from collections.abc import Callable

from foretell.kit.addresses import Addresses, AddressRefused, read_url
from foretell.kit.problems import InvalidRequest

_REMEMBERED_S = 30.0
_MOST_REMEMBERED = 10_000


class CheckedUrls:
    """Checks URLs, and caches hosts for a short time, because every prediction may name the same one."""

    def __init__(self, addresses: Addresses, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._addresses = addresses
        self._clock = clock
        self._good_until: OrderedDict[tuple[bool, str, int], float] = OrderedDict()

    async def check(self, url: str, pointer: str) -> None:
        """Raises `InvalidRequest` for a URL that can't be used; `pointer` is its place in the request."""
        try:
            destination = read_url(url)
            if self._good_until.get(destination.origin, 0.0) > self._clock():
                return
            await self._addresses.of(destination)
        except AddressRefused as error:
            raise InvalidRequest([{"detail": error.message, "pointer": pointer}]) from None
        self._good_until[destination.origin] = self._clock() + _REMEMBERED_S
        self._good_until.move_to_end(destination.origin)
        if len(self._good_until) > _MOST_REMEMBERED:
            self._good_until.popitem(last=False)

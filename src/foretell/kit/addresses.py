"""Checks addresses that users give (webhooks): only machines on the internet are allowed.

Requests to such an address come from inside our network, where more is reachable than from outside. So the URL is
parsed strictly, its name is resolved here, every resolved address is checked, and the connection is made to one of
these addresses, never to the name again.
"""

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from foretell.kit.errors import ForetellError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_URL_LENGTH = 2048
_RESOLVE_TIMEOUT_S = 5.0
#: How many names are resolved at once: a slow name server blocks a thread for each.
_MOST_RESOLVED_AT_ONCE = 64
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
#: WHATWG: a host whose last label looks like this is a number, in whatever notation.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Ports of other protocols, whose servers might misinterpret our request. Below 1024 only those of HTTP are allowed;
#: above, these are refused.
_HTTP_PORTS = (80, 443)
_OTHER_PORTS = frozenset({
    1433, 1521, 1723, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432, 5672, 5900,
    6000, 6379, 6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9042, 9092, 9200, 9300, 10080, 10250, 11211,
    15672, 27017,
})  # fmt: skip
_INTERNET_V6 = ipaddress.ip_network("2000::/3")
#: Networks that translate or tunnel to IPv4 addresses, and networks that older releases of Python do not know.
_NOT_INTERNET: tuple[Network, ...] = tuple(
    map(ipaddress.ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "192.88.99.0/24"))
)


class AddressRefused(ForetellError):
    """This address can't be used: {reason}."""

    code = "address_refused"
    status = 422


@dataclass(frozen=True, slots=True)
class Destination:
    """A parsed URL."""

    secure: bool
    #: A name or an address, in lower case and without brackets.
    host: str
    port: int
    #: Path and query.
    target: str

    @property
    def origin(self) -> tuple[bool, str, int]:
        """The key under which connections can be reused."""
        return self.secure, self.host, self.port

    @property
    def host_header(self) -> str:
        """`Host` of a request."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def read_url(url: str) -> Destination:
    """Parse a URL. Raises `AddressRefused`."""
    if len(url) > _MAX_URL_LENGTH:
        raise AddressRefused(reason=f"it is longer than {_MAX_URL_LENGTH} characters")
    if not url.isascii() or any(character <= " " or character in '\\\x7f"<>^`{|}' for character in url):
        raise AddressRefused(reason="it has characters that must be percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").removesuffix(".")
    except ValueError:
        raise AddressRefused(reason="it is no URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise AddressRefused(reason="it must be http:// or https:// with a host")
    if "@" in parts.netloc:
        raise AddressRefused(reason="it must not have a user name or a password")
    if parts.fragment or url.endswith("#"):
        raise AddressRefused(reason="it must not have a fragment (#)")
    secure = parts.scheme == "https"
    if port is None:
        port = 443 if secure else 80
    if (port < 1024 and port not in _HTTP_PORTS) or port in _OTHER_PORTS:
        raise AddressRefused(reason=f"port {port} is not for HTTP")
    _check_host(host, bracketed=parts.netloc.startswith("["))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(secure, host, port, target)


def _check_host(host: str, *, bracketed: bool) -> None:
    if bracketed:
        try:
            # A zone (%) has a meaning only on one machine.
            ipaddress.IPv6Address("" if "%" in host else host)
        except ValueError:
            raise AddressRefused(reason="the host is no IPv6 address") from None
        return
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise AddressRefused(reason="the host is no name and no address")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise AddressRefused(reason="the host is a number that is no usual IPv4 address") from None


def is_internet(address: Address) -> bool:
    """Whether this is a single machine on the internet, not a private, translated or tunnelled address."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _INTERNET_V6:
        return False
    return not any(address.version == network.version and address in network for network in _NOT_INTERNET)


class Addresses:
    """Decides to which addresses a connection may be made."""

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        needs_tls: bool,
        resolve: "Callable[[str, int], Awaitable[list[str]]] | None" = None,
    ) -> None:
        """`allowed`: private networks that may be used, also without TLS.

        `needs_tls`: all others need `https://`. `resolve` returns the addresses of a name; raises `OSError`.
        """
        self._allowed = tuple(allowed)
        self._needs_tls = needs_tls
        self._resolve = resolve or resolve_name
        self._resolving = asyncio.Semaphore(_MOST_RESOLVED_AT_ONCE)

    async def of(self, destination: Destination) -> list[str]:
        """Its addresses, all checked; resolved again at each call. Raises `AddressRefused`."""
        try:
            found = [ipaddress.ip_address(destination.host)]
        except ValueError:
            found = await self._look_up(destination)
        named = [self._is_allowed(address) for address in found]
        if not all(is_named or is_internet(address) for is_named, address in zip(named, found, strict=True)):
            raise AddressRefused(reason="it leads to an address that is not on the internet")
        if self._needs_tls and not destination.secure and not all(named):
            raise AddressRefused(reason="it must be https://")
        return [str(address) for address in found]

    async def _look_up(self, destination: Destination) -> list[Address]:
        try:
            async with asyncio.timeout(_RESOLVE_TIMEOUT_S), self._resolving:
                found = await self._resolve(destination.host, destination.port)
        except (OSError, UnicodeError):
            # `TimeoutError` is an `OSError`, too.
            raise AddressRefused(reason="its host can't be resolved") from None
        if not found:
            raise AddressRefused(reason="its host can't be resolved")
        try:
            return [ipaddress.ip_address(address) for address in found]
        except ValueError:
            # With a zone: a link-local address.
            raise AddressRefused(reason="it leads to an address that is not on the internet") from None

    def _is_allowed(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._allowed)


async def resolve_name(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system resolves it. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def give(found: list[str] | BaseException) -> None:
        if answer.done():
            return
        if isinstance(found, BaseException):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: list[str] | BaseException
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        except (OSError, UnicodeError) as error:
            found = error
        try:
            loop.call_soon_threadsafe(give, found)
        except RuntimeError:
            # The loop is closed, so the result is not needed.
            return

    # A daemon thread, so that the process can end while it runs: it can't be stopped, and a name server may
    # block it for long.
    threading.Thread(target=ask, name="resolve", daemon=True).start()
    return await answer

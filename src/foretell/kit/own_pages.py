"""Protects services without authentication from other web pages.

Any page can make a browser send requests to this machine: a form or a script can post `text/plain` without a preflight
request, and a name that its owner resolves to 127.0.0.1 (DNS rebinding) makes the answer readable to the page.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from foretell.kit.asgi import Application, Receive, Scope, Send
from foretell.kit.errors import ForetellError
from foretell.kit.problems import problem_bytes


class ForeignPage(ForetellError):
    """Another web page may not call this service: its Origin is not this address."""

    code = "foreign_page"
    status = 403


class UnknownHost(ForetellError):
    """Without a token, this service answers to addresses, localhost and names that it was given, not to other names."""

    code = "unknown_host"
    status = 421


class OwnPages:
    """Refuses requests of other pages to `app`; with `names_refused`, also requests with another host name.

    `own_names` are allowed: no page on the internet can have these names.
    """

    def __init__(self, app: Application, *, names_refused: bool = False, own_names: Iterable[str] = ()) -> None:
        self._app = app
        self._names_refused = names_refused
        self._own_names = frozenset(name.lower() for name in own_names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refusal(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        status, headers, body = problem_bytes(error, scope["path"])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> ForetellError | None:
        host = _value(scope["headers"], b"host")
        origin = _value(scope["headers"], b"origin")
        if origin is not None and _netloc(origin) != host:
            return ForeignPage()
        if self._names_refused and host is not None and not self._is_ours(host):
            return UnknownHost()
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header has an allowed name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return _is_local(name) or name in self._own_names


def _value(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    return next((value.decode("latin-1").lower() for key, value in headers if key == name), None)


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _is_local(name: str) -> bool:
    """Whether it is an IP address, which can't be another page's name, or localhost."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

"""The cookie of a session, and what proves that a request with it comes from our own page.

A browser sends the cookie with whatever any page makes it send. So a request that changes something must not come from
another page (`Sec-Fetch-Site`, `Origin`), and must show a secret that other pages can't know (`X-CSRF-Token`).
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from foretell.domain.accounts.sessions import PREFIX, csrf_token_of
from foretell.kit.errors import ForetellError
from foretell.services.app.client_address import Network, is_trusted

#: RFC 9110: these ask for nothing to be done.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE = "foretell_session"
#: Over HTTPS. Browsers take it from this host alone, so that no neighbour of the domain can put another in its place.
SECURE_COOKIE = f"__Host-{COOKIE}"
_NAMES = (SECURE_COOKIE.encode(), COOKIE.encode())


class ForeignRequest(ForetellError):
    """This request comes from another web page, or its X-CSRF-Token is not the one of this session (GET /session)."""

    code = "csrf"
    status = 403


def session_secret_of(cookies: bytes) -> str | None:
    """The secret of the session in a `Cookie` header."""
    found: dict[bytes, str] = {}
    for part in cookies.split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name in _NAMES and value.startswith(PREFIX.encode()):
            found.setdefault(name, value.decode("latin-1"))
    return found.get(_NAMES[0]) or found.get(_NAMES[1])


def check_not_foreign(headers: Iterable[tuple[bytes, bytes]], secret: str) -> None:
    """Raises `ForeignRequest` unless our own page sent this, with the token that belongs to `secret`."""
    given = {name: value.decode("latin-1") for name, value in headers if name in _LOOKED_AT}
    check_own_page(given)
    # As bytes: a text with other letters than ASCII's can't be compared so.
    shown = given.get(b"x-csrf-token", "").encode()
    if not hmac.compare_digest(shown, csrf_token_of(secret).encode()):
        raise ForeignRequest


_LOOKED_AT = frozenset((b"host", b"origin", b"sec-fetch-site", b"x-csrf-token"))


def check_own_page(headers: Mapping[bytes, str]) -> None:
    """Raises `ForeignRequest` when the browser says that another page sent this; programs say nothing."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        # The browser knows best; a proxy may have given the request another `Host`.
        if site not in ("same-origin", "none"):
            raise ForeignRequest
        return
    origin = headers.get(b"origin")
    if origin is not None and _host(origin) != headers.get(b"host", "").lower():
        raise ForeignRequest


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin.lower()).netloc or None
    except ValueError:
        return None


def came_by_https(scope: Mapping[str, Any], trusted_proxies: Sequence[Network]) -> bool:
    """Whether the browser used HTTPS, as a trusted proxy says."""
    if scope.get("scheme") == "https":
        return True
    client = scope.get("client")
    if not trusted_proxies or not is_trusted(client[0] if client else "", trusted_proxies):
        return False
    said = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    return len(said) == 1 and said[0].split(b",")[0].strip().lower() == b"https"


def setting(secret: str, *, secure: bool, lasts_s: float) -> str:
    """The value of `Set-Cookie` that gives a browser this secret; with none, it forgets the one it has."""
    name = SECURE_COOKIE if secure else COOKIE
    parts = [f"{name}={secret}", "Path=/", f"Max-Age={int(lasts_s) if secret else 0}", "HttpOnly", "SameSite=Lax"]
    return "; ".join([*parts, "Secure"] if secure else parts)

"""The session cookie, and the CSRF checks of requests that carry it.

A browser sends the cookie with requests that any web page causes. So a request that changes something must not come
from another page (`Sec-Fetch-Site`, `Origin`), and must have a secret that other pages can't know (`X-CSRF-Token`).
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from foretell.domain.accounts.sessions import PREFIX, csrf_token_of
from foretell.kit.errors import ForetellError
from foretell.services.app.client_address import Network, is_trusted

#: The safe methods of RFC 9110, which change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE = "foretell_session"
#: The name over HTTPS. Browsers accept `__Host-` only from this host, so that no other host of the domain can set it.
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
    """Raises `ForeignRequest` unless our own page sent the request, with the CSRF token of `secret`."""
    given = {name: value.decode("latin-1") for name, value in headers if name in _LOOKED_AT}
    check_own_page(given)
    # As bytes, since `compare_digest` takes only ASCII texts.
    shown = given.get(b"x-csrf-token", "").encode()
    if not hmac.compare_digest(shown, csrf_token_of(secret).encode()):
        raise ForeignRequest


_LOOKED_AT = frozenset((b"host", b"origin", b"sec-fetch-site", b"x-csrf-token"))


def check_own_page(headers: Mapping[bytes, str]) -> None:
    """Raises `ForeignRequest` when the browser's headers name another page; other clients send none of them."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        # More reliable than `Origin`, because a proxy may have changed `Host`.
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
    """Whether the browser used HTTPS, according to a trusted proxy."""
    if scope.get("scheme") == "https":
        return True
    client = scope.get("client")
    if not trusted_proxies or not is_trusted(client[0] if client else "", trusted_proxies):
        return False
    said = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    return len(said) == 1 and said[0].split(b",")[0].strip().lower() == b"https"


def setting(secret: str, *, secure: bool, lasts_s: float) -> str:
    """The value of `Set-Cookie` that sets this secret; an empty one deletes the cookie."""
    name = SECURE_COOKIE if secure else COOKIE
    parts = [f"{name}={secret}", "Path=/", f"Max-Age={int(lasts_s) if secret else 0}", "HttpOnly", "SameSite=Lax"]
    return "; ".join([*parts, "Secure"] if secure else parts)

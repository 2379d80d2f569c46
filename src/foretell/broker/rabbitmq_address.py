"""Where RabbitMQ is: one URL that names one node or several."""

import re
from urllib.parse import quote, unquote

from yarl import URL

from foretell.kit.errors import Misconfigured

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@\s]+)(?::([0-9]{1,5}))?")
#: The URL itself is never shown: it may hold a password.
_REFUSAL = (
    "FORETELL_BROKER_URL is not a URL like amqp://USER:PASSWORD@HOST:5672,HOST:5672/VHOST,"
    " with odd characters percent-encoded"
)


def addresses(url: str) -> list[URL]:
    """One URL for each host of `amqp[s]://USER:PASSWORD@HOST:PORT,HOST:PORT/VHOST?OPTIONS`. Raises `Misconfigured`."""
    scheme, separator, rest = url.partition("://")
    authority, path, options = _divided(rest)
    userinfo, _, hosts = authority.rpartition("@")
    if scheme not in ("amqp", "amqps") or not separator or "#" in url or re.search("%(?![0-9A-Fa-f]{2})", url):
        raise Misconfigured(_REFUSAL)
    login = ""
    if userinfo:
        user, colon, password = userinfo.partition(":")
        login = quote(unquote(user), safe="") + (":" + quote(unquote(password), safe="") if colon else "") + "@"
    found = []
    for host in hosts.split(","):
        match = _HOST.fullmatch(host)
        if match is None or (match[2] is not None and not 0 < int(match[2]) < 65536):
            raise Misconfigured(_REFUSAL)
        port = match[2] or ("5671" if scheme == "amqps" else "5672")
        try:
            found.append(URL(f"{scheme}://{login}{match[1]}:{port}{path}{options}", encoded=True))
        except ValueError:
            raise Misconfigured(_REFUSAL) from None
    return found


def _divided(rest: str) -> tuple[str, str, str]:
    """Authority, path and options, of which the last two begin with what divides them."""
    before, question, options = rest.partition("?")
    authority, slash, path = before.partition("/")
    return authority, slash + path or "/", question + options

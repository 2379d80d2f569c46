"""Address and credentials of a PostgreSQL server, parsed from its URL in one place for all connections."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import quote, unquote

import asyncpg

from foretell.kit.errors import Misconfigured

DEFAULT_PORT = 5432

_SCHEMES = ("postgresql", "postgres")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SSL_FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl")
_SSL_OTHERS = ("sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version")
#: Foretell writes, so it can't use a standby.
_TARGETS = ("any", "primary", "read-write")
_PARAMETERS = (
    *("host", "port", "user", "password", "dbname", "target_session_attrs", "sslmode"),
    *(*_SSL_FILES, *_SSL_OTHERS),
)
#: Scheme, authority, path, query. A # is an ordinary character here, because passwords may contain it.
_URL = re.compile(r"([^:/?]*)://([^/?]*)(?:/([^?]*))?(?:\?(.*))?", re.DOTALL)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

# Errors after which the next host is tried: this one is unreachable, not ready, or not the right one.
_TRY_NEXT = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
)


@dataclass(frozen=True, slots=True)
class PostgresqlAddress:
    """Servers in the order in which they are tried, and the parameters of a connection."""

    #: Names, addresses or folders of sockets, each with a port; empty: libpq's defaults.
    hosts: tuple[tuple[str, int], ...]
    user: str | None
    password: str | None = field(repr=False)
    database: str | None
    #: `target_session_attrs` of libpq.
    target: str
    #: Parameters of libpq by name: `sslmode` and so on.
    ssl: Mapping[str, str] = field(repr=False)

    def arguments(self) -> dict[str, Any]:
        """Arguments of `asyncpg.connect`, without host and port."""
        arguments: dict[str, Any] = {
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "target_session_attrs": self.target,
        }
        if self.ssl:
            # asyncpg takes the names of these files only in a URL.
            query = "&".join(f"{name}={quote(value, safe='')}" for name, value in self.ssl.items())
            arguments["dsn"] = f"postgresql://?{query}"
        return arguments


class Connector:
    """Connects to the first server of an address that accepts, starting with the last one that did."""

    def __init__(self, address: PostgresqlAddress, timeout_s: float) -> None:
        """`timeout_s` is for all servers together; each server gets a share of it."""
        self._address = address
        self._timeout_s = timeout_s
        self._first = 0

    async def connect(self, *_: Any, **settings: Any) -> asyncpg.Connection:
        """A new connection; `settings` are further arguments of `asyncpg.connect`. Raises the last host's error."""
        hosts, arguments = self._address.hosts, {**self._address.arguments(), **settings}
        if not hosts:
            return await asyncpg.connect(timeout=self._timeout_s, **arguments)
        deadline = monotonic() + self._timeout_s
        for number in range(len(hosts)):
            at = (self._first + number) % len(hosts)
            host, port = hosts[at]
            share_s = (deadline - monotonic()) / (len(hosts) - number)
            try:
                connection = await asyncpg.connect(host=host, port=port, timeout=max(share_s, 0.01), **arguments)
            except _TRY_NEXT:
                if number == len(hosts) - 1:
                    raise
            else:
                self._first = at
                return connection
        raise AssertionError("there is a last host")


def read_postgresql_url(url: str) -> PostgresqlAddress:
    """The address of a URL in libpq's format.

    Raises `Misconfigured` for an invalid or unsupported URL, with a message that contains no password.
    """
    matched = _URL.fullmatch(url)
    if matched is None or matched[1] not in _SCHEMES:
        raise _refused("must be postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///PATH")
    authority, path, query = matched[2], matched[3] or "", matched[4] or ""
    if "@" in path or "/" in path:
        raise _refused("has an @ or / in its database; in a user, password or database write %40 and %2F")
    credentials, _, hosts = authority.rpartition("@")
    user, colon, password = credentials.partition(":")
    given = {
        "host": hosts,
        "user": _decoded(user, "user"),
        "password": _decoded(password, "password") if colon else "",
        "dbname": _decoded(path, "database"),
    }
    parameters = _parameters(query)
    for name, value in given.items():
        if value and name in parameters:
            raise _refused(f"says {name} twice, before the ? and after it")
    parameters |= {name: value for name, value in given.items() if value}
    if hosts and "port" in parameters:
        raise _refused("says port after the ?, but the host before it: write HOST:PORT")
    _check_choice(parameters, "sslmode", _SSL_MODES)
    _check_choice(parameters, "target_session_attrs", _TARGETS)
    for name in _SSL_FILES:
        if name in parameters and not os.access(parameters[name], os.R_OK):
            raise _refused(f"names a file in {name} that is not there or can't be read")
    return PostgresqlAddress(
        hosts=_authority_hosts(hosts) if hosts else _parameter_hosts(parameters),
        user=parameters.get("user"),
        password=parameters.get("password"),
        database=parameters.get("dbname"),
        target=parameters.get("target_session_attrs", "any"),
        ssl={name: parameters[name] for name in ("sslmode", *_SSL_FILES, *_SSL_OTHERS) if name in parameters},
    )


def _refused(what: str) -> Misconfigured:
    return Misconfigured(f"FORETELL_DATABASE_URL {what}.")


def _parameters(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if name not in _PARAMETERS:
            # Text that is not a name may be the rest of a password with a ? in it.
            known = equals and name.isidentifier()
            what = f"has the parameter {name}, which" if known else "has something after its ? that"
            raise _refused(f"{what} Foretell does not know; it knows {', '.join(_PARAMETERS)}")
        if not equals or not value:
            raise _refused(f"has the parameter {name} without a value")
        if name in found:
            raise _refused(f"has the parameter {name} twice")
        found[name] = _decoded(value, name)
    return found


def _check_choice(parameters: Mapping[str, str], name: str, choices: tuple[str, ...]) -> None:
    if parameters.get(name, choices[0]) not in choices:
        raise _refused(f"has a {name} that is none of {', '.join(choices)}")


def _decoded(text: str, name: str) -> str:
    try:
        if not _BAD_PERCENT.search(text):
            return unquote(text, errors="strict")
    except UnicodeDecodeError:
        pass
    raise _refused(f"has a % in its {name} that is not followed by two hexadecimal digits of UTF-8: write %25 for %")


def _authority_hosts(text: str) -> tuple[tuple[str, int], ...]:
    """`a,b:5433,[::1]:5434,%2Frun%2Fpostgresql`."""
    found = []
    for part in text.split(","):
        host, separator, port = part.rpartition(":")
        if not separator or part.endswith("]"):
            host, port = part, ""
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host or not host:
            raise _refused("has a host that can't be read: write HOST, HOST:PORT or [IPV6]:PORT, several with commas")
        found.append((_decoded(host, "host"), _port(port)))
    return tuple(found)


def _parameter_hosts(parameters: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    ports = [_port(port) for port in parameters.get("port", "").split(",")]
    if "host" not in parameters:
        if "port" in parameters:
            raise _refused("has the parameter port without host")
        return ()
    hosts = parameters["host"].split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts) or not all(hosts):
        raise _refused("has parameters host and port that do not fit: as many ports as hosts, or one")
    return tuple(zip(hosts, ports, strict=True))


def _port(text: str) -> int:
    if not text:
        return DEFAULT_PORT
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        # Not shown, because it may be the beginning of a password.
        raise _refused("has a port that is none; in a user or password, write : / ? # and % as %3A %2F %3F %23 and %25")
    return int(text)

"""The common part of both clients' connections."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import httpx

from foretell.client.calls import Call, InvalidCall
from foretell.client.tokens import checked

_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0
_LAST_PORT = 65_535
#: A valid header value: printable, without white space at its ends.
_HEADER = re.compile(r"([!-~]([ -~]*[!-~])?)?")


def settings_of(url: str, token: str | None) -> dict[str, Any]:
    """Arguments for httpx. `token` is an access token or an API key, which are sent alike. Raises `InvalidCall`."""
    address = _address(url)
    return {
        "base_url": address,
        "headers": {"Authorization": f"Bearer {checked(token)}"} if token else {},
        "timeout": httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        # A proxy from the environment can't reach this machine's loopback interface.
        "trust_env": not _is_loopback(address.host),
    }


def _address(url: str) -> httpx.URL:
    """The URL of the app. Raises `InvalidCall` if it is not a server's URL."""
    try:
        address = httpx.URL(url)
        # Checks that the name can be resolved: no label is empty or too long.
        address.raw_host.decode().encode("idna")
    except (httpx.InvalidURL, TypeError, ValueError):
        address = httpx.URL()
    is_port = address.port is None or 0 < address.port <= _LAST_PORT
    if address.scheme not in ("http", "https") or not address.host or not is_port:
        raise InvalidCall(reason="the address must look like http://localhost:8000 or https://foretell.example.com")
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def request_to(http: httpx.Client | httpx.AsyncClient, call: Call[Any], token: str | None) -> httpx.Request:
    """The request of a call, with `token`. Raises `InvalidCall` if it can't be sent."""
    if http.is_closed:
        raise InvalidCall(reason="the client is closed")
    for name, value in call.headers.items():
        if not isinstance(value, str) or not _HEADER.fullmatch(value):
            raise InvalidCall(reason=f"{name} must be printable ASCII, without white space at its ends")
    try:
        return http.build_request(**request_of(call, token))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidCall(reason=f"an argument can't be written as JSON ({error})") from error


def request_of(call: Call[Any], token: str | None = None) -> dict[str, Any]:
    """Arguments for one request of httpx, with `token` in place of the connection's token."""
    proof = {} if token is None else {"Authorization": f"Bearer {token}"}
    return {
        "method": call.method,
        "url": call.path,
        "json": call.json,
        "data": call.form,
        "params": dict(call.query),
        "headers": {**call.headers, **proof},
        "timeout": httpx.Timeout(_TIMEOUT_S + call.extra_wait_s, connect=_CONNECT_TIMEOUT_S),
    }


def looking_pauses_s() -> Iterator[float]:
    """The pauses between polls of a prediction that has not ended, in seconds."""
    pause_s = 0.1
    while True:
        yield pause_s
        pause_s = min(2.0, pause_s * 1.5)
